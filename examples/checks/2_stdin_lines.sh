# SPDX-License-Identifier: Apache-2.0
# The same 20 000 lines from a file and through a pipe.
check_2_stdin_lines() {
    seq 1 20000 | sed 's/$/ is the number of this line/' >lines
    printf 'the last line has no end' >>lines
    awk '{ printf "%6d  %s\n", NR, $0 }' lines >expected
    input=lines
    launch 2_stdin_lines
    wait "$server" || failed "status $? from a file"
    cmp "$log" expected || failed "lines differ that came from a file"
    { head -c 100000 lines; sleep 0.1; tail -c +100001 lines; } |
        "$build/examples/2_stdin_lines" >piped || failed "status $? from a pipe"
    cmp piped expected || failed "lines differ that came through a pipe"
    did "20 001 lines from a file and from a pipe"
    figure "both as expected"
}
