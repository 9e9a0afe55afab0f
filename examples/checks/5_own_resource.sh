# SPDX-License-Identifier: Apache-2.0
# Changes in a directory, seen by a resource of one's own.
check_5_own_resource() {
    mkdir watched
    launch 5_own_resource watched 30
    await 10 grep -q '^watching$' "$log" || failed "does not watch: $(cat "$log")"
    for file in $(seq 10); do
        echo "$file" >"watched/$file"
        rm "watched/$file"
    done
    wait "$server" || failed "status $?"
    [ "$(grep -c '^created ' "$log")" -eq 10 ] || failed "created: $(cat "$log")"
    [ "$(grep -c '^written ' "$log")" -eq 10 ] || failed "written: $(cat "$log")"
    [ "$(grep -c '^deleted ' "$log")" -eq 10 ] || failed "deleted: $(cat "$log")"
    did "10 files created, written, deleted"
    figure "30 changes seen in order"
    launch 5_own_resource no/such/directory 1
    wait "$server" || failed "status $?"
    grep -q 'No such file' "$log" || failed "no cause told: $(cat "$log")"
}
