# SPDX-License-Identifier: Apache-2.0
# What doxygen is given of a header: the namespace reactor, without the inline one, which no user
# writes and doxygen 1.9 does not read; not the specialisations of other people's templates. Lines
# keep their numbers.
FILENAME !~ /\.hpp$/ { print; next }
/^} \/\/ namespace reactor/ { print "}"; inside = 0; next }
/^namespace reactor/ { inside = 1; sub(/::inline v0/, "") }
{ print inside ? $0 : "" }
