# SPDX-License-Identifier: Apache-2.0
# The echo server under real clients: much, many, and one that does not read.
packages="ncat"
seconds=240

resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$server/status"; }
descriptors() { find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l; }
has_clients() { [ "$(descriptors)" -ge "$1" ]; }
has_no_clients() { [ "$(descriptors)" -le "$1" ]; }

check_3_echo_server() {
    start 3_echo_server 127.0.0.1:0
    alone=$(descriptors)

    # Much: 300 MB there and back.
    head -c 300000000 /dev/urandom >much
    sent=$(sha256sum <much)
    began=$(date +%s%N)
    came=$(ncat 127.0.0.1 "$port" <much | sha256sum)
    spent=$((($(date +%s%N) - began) / 1000000))
    rm much
    [ "$sent" = "$came" ] || failed "300 MB came back with another SHA-256"
    figure "300 MB back with the same SHA-256 in $spent ms"

    # Many: 500 clients, all connected at once, each with its own bytes.
    mkfifo gate
    exec 9<>gate
    head -c 20000 /dev/urandom >own
    for client in $(seq 500); do
        { { echo "client $client"; cat own; cat <gate >/dev/null; } 9>&- | ncat 127.0.0.1 "$port" >"came.$client"; } 9>&- &
        echo $! >>clients
    done
    await 60 has_clients $((alone + 500)) || failed "only $(($(descriptors) - alone)) of 500 clients"
    exec 9>&-
    while read -r pid; do
        wait "$pid" || failed "a client left with status $?"
    done <clients
    for client in $(seq 500); do
        { echo "client $client"; cat own; } | cmp -s - "came.$client" ||
            failed "client $client got other bytes than it sent"
    done
    rm -f came.* clients
    figure "500 clients at once"
    await 10 has_no_clients "$alone" || failed "$(($(descriptors) - alone)) descriptors too many"

    # One that does not read while 8 MB are sent to it: it costs at most its cap, 1 MiB.
    head -c 8000000 /dev/urandom >unread
    before=$(resident)
    bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        cat unread >&3 &
        sleep 1.5
        echo full >full
        while [ ! -e read ]; do sleep 0.05; done
        head -c 8000000 <&3 | sha256sum >digest
    ' reader "$port" &
    reader=$!
    await 20 test -e full || failed "the client that does not read did not connect"
    cost=$(($(resident) - before))
    echo now >read
    wait "$reader"
    [ "$(cat digest)" = "$(sha256sum <unread)" ] || failed "bytes lost to a client that read late"
    [ "$cost" -le 1300 ] || failed "a client that does not read costs $cost KiB"
    figure "8 MB unread cost $cost KiB, none lost"

    stop
    did "ncat and bash as clients"
}
