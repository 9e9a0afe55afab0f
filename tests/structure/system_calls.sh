#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# system_calls.sh LIST INCLUDE: system calls are spelled in os/kernel.hpp and nowhere else. So no
# other header includes the system's headers, calls a function of the global namespace, or names a
# system call without a Kernel before it.
set -eu
list=$(realpath "$1")
cd "$2"

# Header, colon, and what it may include or call besides: to translate addresses is no system call.
allowed='
reactor/net/address.hpp: <arpa/inet.h> <netinet/in.h> <sys/socket.h> <sys/un.h> <netdb.h>
reactor/fmt.hpp: <fmt/format.h>
reactor/net/address.hpp: inet_pton inet_ntop htons ntohs htonl ntohl
'

status=0
while read -r header; do
    [ "$header" != reactor/os/kernel.hpp ] || continue
    awk -v allowed="$allowed" '
        BEGIN {
            count = split(allowed, lines, "\n")
            for (i = 1; i <= count; i++) {
                words = split(lines[i], word, " ")
                for (j = 2; j <= words; j++) may[word[1] word[j]] = 1
            }
            # Names that mean the system call wherever they stand; read, write, close and the like
            # are also good names for members.
            calls = "accept4|clock_gettime|dup3|epoll_create1?|epoll_ctl|epoll_p?wait2?|eventfd|" \
                "fcntl|fork|getpeername|getpid|getsockname|getsockopt|gettid|ioctl|memfd_create|" \
                "pipe2|ppoll|pread|pthread_[a-z_]+|pwrite|readv|recvfrom|recvm?msg|sendm?msg|" \
                "sendto|setrlimit|getrlimit|setsockopt|sigaction|signalfd|sigprocmask|" \
                "socketpair|splice|syscall|timerfd_[a-z]+|waitid|waitpid|writev"
        }
        function complain(what) {
            printf "%s:%d: %s\n", FILENAME, FNR, what
            status = 1
        }
        function without_comments(line,    at) {
            gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
            if (in_comment) {
                at = index(line, "*/")
                if (!at) return ""
                line = substr(line, at + 2)
                in_comment = 0
            }
            sub(/\/\/.*/, "", line)
            gsub(/\/\*[^*]*\*\//, "", line)
            at = index(line, "/*")
            if (at) {
                in_comment = 1
                line = substr(line, 1, at - 1)
            }
            return line
        }
        {
            line = without_comments($0)
            if (match(line, /^[ \t]*#[ \t]*include[ \t]*<[^>]*\.h>/)) {
                name = line
                sub(/^[^<]*/, "", name)
                sub(/>.*/, ">", name)
                if (!((FILENAME ":" name) in may))
                    complain("includes " name ": system headers are for os/kernel.hpp")
                next
            }
            rest = line
            while (match(rest, /(^|[^A-Za-z0-9_>:])::[ ]*[A-Za-z_][A-Za-z0-9_]*[ ]*\(/)) {
                name = substr(rest, RSTART, RLENGTH)
                gsub(/[^A-Za-z0-9_]/, "", name)
                if (name != "new" && !((FILENAME ":" name) in may)) complain("calls ::" name "()")
                rest = substr(rest, RSTART + RLENGTH)
            }
            # A kernel of the annexes declares functions of these names.
            if (FILENAME ~ /\/(testing|sim)\//) next
            rest = line
            while (match(rest, "(^|[^A-Za-z0-9_.>:])(" calls ")[ ]*\\(")) {
                name = substr(rest, RSTART, RLENGTH)
                gsub(/[^A-Za-z0-9_]/, "", name)
                complain("calls " name "() without a Kernel")
                rest = substr(rest, RSTART + RLENGTH)
            }
        }
        END { exit status }
    ' "$header" || status=1
done <"$list"
exit $status
