# SPDX-License-Identifier: Apache-2.0
# A timer that beats five times and is never early.
check_1_heartbeat() {
    launch 1_heartbeat 5 20
    wait "$server" || failed "status $?"
    [ "$(wc -l <"$log")" -eq 5 ] || failed "not five beats: $(cat "$log")"
    number=0
    while read -r _ _ passed _; do
        number=$((number + 1))
        [ "$passed" -ge $((number * 20)) ] || failed "beat $number is early: $passed ms"
    done <"$log"
    did "five beats of 20 ms"
    figure "$(tail -n 1 "$log")"
}
