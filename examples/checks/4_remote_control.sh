# SPDX-License-Identifier: Apache-2.0
# Two guests in the room; the house speaks from another thread, then closes.
packages="ncat"
check_4_remote_control() {
    mkfifo house
    exec 8<>house
    input=house
    start 4_remote_control 127.0.0.1:0
    mkfifo first
    exec 7<>first
    ncat 127.0.0.1 "$port" <first >first.log 7>&- 8>&- &
    guest=$!
    ncat 127.0.0.1 "$port" </dev/null >second.log 7>&- 8>&- &
    await 10 grep -q welcome first.log || failed "no welcome"
    echo "hello from the first" >&7
    await 10 grep -q 'hello from the first' first.log || failed "the room does not repeat"
    echo "dinner is served" >&8
    await 10 grep -q '^the house: dinner is served$' first.log || failed "the house is not heard"
    echo "quit" >&8
    await 10 grep -q '^the house: goodbye$' first.log || failed "no goodbye"
    exec 7>&-
    wait "$guest" || true
    wait "$server" || failed "status $?"
    grep -q '^clean 1, forced 0, unsent 0$' "$log" || failed "no clean end: $(tail -n 1 "$log")"
    exec 8>&-
    did "commands from the thread that reads standard input"
    figure "$(grep -c . first.log) lines heard, clean end"
}
