# SPDX-License-Identifier: Apache-2.0
# A service in a simulated storm: the planted bug is found, the corrected one holds.
check_8_in_a_storm() {
    launch 8_in_a_storm
    wait "$server" || failed "status $?"
    grep -q '^replay it with this seed' "$log" || failed "the planted bug was not found"
    grep -q '^ok: ' "$log" || failed "the corrected service did not hold"
    did "a service on a simulated kernel, in bad weather"
    figure "$(sed -n 's/^ok: //p' "$log")"
}
