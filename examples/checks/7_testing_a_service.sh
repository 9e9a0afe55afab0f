# SPDX-License-Identifier: Apache-2.0
# Tests of a service: with its actions alone, and with a scripted poller.
check_7_testing_a_service() {
    launch 7_testing_a_service
    wait "$server" || failed "status $?"
    did "a service tested without a kernel"
    figure "$(wc -l <"$log") things checked"
}
