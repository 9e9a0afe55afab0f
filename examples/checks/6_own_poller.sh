# SPDX-License-Identifier: Apache-2.0
# An echo over a poller of one's own.
packages="ncat"
check_6_own_poller() {
    start 6_own_poller 127.0.0.1:0
    head -c 5000000 /dev/urandom >bytes
    ncat 127.0.0.1 "$port" <bytes | cmp - bytes || failed "other bytes came back"
    wait "$server" || failed "status $?"
    did "5 MB through a poller that spins"
    figure "$(tail -n 1 "$log")"
}
