#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# callbacks.sh PROGRAM: the program answers each line of its input, a name, with whether it is
# known, says every second that it is still here, and leaves with status 0 at the end of the input.
set -eu

scratch=$(mktemp -d)
program=
leave() {
    [ -z "$program" ] || kill -KILL "$program" 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT
mkfifo "$scratch/names"
"$1" <"$scratch/names" >"$scratch/said" &
program=$!
exec 3>"$scratch/names"

# says LINE COUNT: the output has that line so often before long.
says() {
    tries=0
    while [ "$(grep -cx "$1" "$scratch/said" || true)" -lt "$2" ]; do
        kill -0 "$program" 2>/dev/null || { echo "the program has left"; exit 1; }
        tries=$((tries + 1))
        [ $tries -lt 400 ] || { echo "did not say '$1' $2 times: $(cat "$scratch/said")"; exit 1; }
        sleep 0.05
    done
}

# Numbers are names that no server has to be asked for.
echo 127.0.0.1 >&3
says known 1
echo ::1 >&3
says known 2
says "still here" 1
exec 3>&-
status=0
wait "$program" || status=$?
program=
[ $status -eq 0 ] || { echo "the program left with status $status"; exit 1; }
echo "answered two names, left with status 0"
