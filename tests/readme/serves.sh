#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# serves.sh PROGRAM: the program listens on a port of 127.0.0.1, echoes what a client sends, and
# leaves with status 0 on SIGTERM.
set -eu

"$1" &
server=$!
trap 'kill -KILL $server 2>/dev/null || true' EXIT

# The listening port, in the kernel's tables: the program need not print it.
port() {
    sockets=$(readlink /proc/$server/fd/* 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p')
    awk -v sockets="$sockets" '
        BEGIN { count = split(sockets, list, "\n"); for (i = 1; i <= count; i++) ours[list[i]] = 1 }
        $4 == "0A" && ($10 in ours) { print substr($2, 10); exit }
    ' /proc/net/tcp
}

tries=0
while [ -z "$(port)" ]; do
    kill -0 $server 2>/dev/null || { echo "the server has left"; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "the server does not listen"; exit 1; }
    sleep 0.05
done
port=$((0x$(port)))

for text in "hello" "" "$(head -c 100000 /dev/zero | tr '\0' 'x')"; do
    answer=$(printf '%s' "$text" | socat -t 10 - "TCP:127.0.0.1:$port")
    [ "$answer" = "$text" ] || { echo "sent ${#text} bytes, got ${#answer} back"; exit 1; }
done

kill -TERM $server
status=0
wait $server || status=$?
trap - EXIT
[ $status -eq 0 ] || { echo "the server left with status $status"; exit 1; }
echo "echoed on port $port, left with status 0"
