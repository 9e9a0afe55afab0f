# SPDX-License-Identifier: Apache-2.0
# The upload server under its real clients: curl, wrk, h2load, ab, a browser, slow ones and rude ones.
packages="curl wrk nghttp2-client apache2-utils nginx-light python3 chromium chromium-driver"
seconds=600

resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$server/status"; }
most_resident() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$server/status"; }
descriptors() { find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l; }
sha256() { sha256sum "$1" | cut -d' ' -f1; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# upload FILE: sends it as a form does; the answer must tell its size and its SHA-256.
upload() {
    curl -sS --fail --form "file=@$1" "http://127.0.0.1:$port/upload" >"$1.answer"
    grep -qF "\"size\":$(stat -c %s "$1"),\"sha256\":\"$(sha256 "$1")\"" "$1.answer" ||
        failed "$1: the server answered $(cat "$1.answer")"
}
# download FILE: what comes back is what was sent.
download() {
    curl -sS --fail "http://127.0.0.1:$port/files/$1" | cmp -s - "$1" || failed "$1 came back otherwise"
}

sizes() {
    : >nothing
    head -c 1000 /dev/urandom >small
    head -c 1000000 /dev/urandom >medium
    head -c 300000000 /dev/urandom >large
    for file in nothing small medium large; do
        upload "$file"
        download "$file"
        curl -sS --fail -T "$file" "http://127.0.0.1:$port/files/raw.$file" -o raw.answer
        mv "$file" "raw.$file"
        download "raw.$file"
        mv "raw.$file" "$file"
    done
    curl -sS --fail -H 'Transfer-Encoding: chunked' -T medium \
        "http://127.0.0.1:$port/files/chunked" -o chunked.answer
    cmp -s medium "$store/chunked" || failed "a chunked body was stored otherwise"
    rm -f large
    figure "0 B, 1 KB, 1 MB, 300 MB up and down"
}

crowd() {
    alone=$(descriptors)
    for n in $(seq 200); do head -c $((n * 1000)) /dev/urandom >"crowd.$n"; done
    for n in $(seq 200); do
        upload "crowd.$n" &
        echo $! >>crowd.pids
    done
    while read -r pid; do wait "$pid" || failed "an upload of 200 failed"; done <crowd.pids
    for n in $(seq 200); do cmp -s "crowd.$n" "$store/crowd.$n" || failed "crowd.$n differs"; done
    rm -f crowd.*
    await 10 [ "$(descriptors)" -le "$alone" ] || failed "descriptors were left"
    figure "200 uploads at once"
}

slow_beside_fast() {
    head -c 100000000 /dev/urandom >fast
    began=$(milliseconds)
    upload fast
    without=$(($(milliseconds) - began))
    for n in $(seq 20); do
        head -c 400000 /dev/urandom >"slow.$n"
        curl -sS --limit-rate 100k --form "file=@slow.$n" "http://127.0.0.1:$port/upload" \
            -o "slow.$n.answer" &
        echo $! >>slow.pids
        curl -sS --limit-rate 100k "http://127.0.0.1:$port/files/medium" -o "slow.$n.down" &
        echo $! >>slow.pids
    done
    began=$(milliseconds)
    upload fast
    beside=$(($(milliseconds) - began))
    while read -r pid; do wait "$pid" || failed "a slow client failed"; done <slow.pids
    for n in $(seq 20); do
        grep -q "$(sha256 "slow.$n")" "slow.$n.answer" || failed "slow.$n was stored otherwise"
        cmp -s "slow.$n.down" medium || failed "slow.$n came down otherwise"
    done
    rm -f slow.* fast
    [ "$beside" -le $((2 * without + 500)) ] ||
        failed "100 MB took $beside ms beside 40 slow ones, $without ms without"
    figure "100 MB in $without ms, beside 40 slow clients in $beside ms"
}

browser() {
    head -c 123456 /dev/urandom >from-a-browser
    python3 "$here/checks/http_upload_browser.py" "http://127.0.0.1:$port/" "$work/from-a-browser" \
        "$work/screenshot.png" "$work" >browser.said 2>&1 || failed "the browser: $(tail -n 3 browser.said)"
    grep -q "$(sha256 from-a-browser)" browser.said || failed "the browser saw $(cat browser.said)"
    cmp -s from-a-browser "$store/from-a-browser" || failed "the browser's file differs"
    cp screenshot.png "$build/http_upload.png"
    figure "a form sent by Chromium (build/examples/http_upload.png)"
}

# A free port that no client's end is given meanwhile.
port_for_nginx() {
    python3 - <<'END'
import socket
with open("/proc/sys/net/ipv4/ip_local_port_range") as range_of_clients:
    lowest = int(range_of_clients.read().split()[0])
for port in range(lowest - 1, 1023, -1):
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
END
}

load() {
    mkdir -p nginx
    other=$(port_for_nginx)
    [ -n "$other" ] || failed "no port for nginx below those of clients"
    cat >nginx.conf <<END
daemon off; worker_processes 1; pid $work/nginx/pid; error_log $work/nginx/log;
events { worker_connections 4096; }
http { access_log off; client_body_temp_path nginx/b; proxy_temp_path nginx/p;
  fastcgi_temp_path nginx/f; uwsgi_temp_path nginx/u; scgi_temp_path nginx/s;
  server { listen 127.0.0.1:$other; keepalive_requests 100000000;
    location / { default_type text/plain; return 200 "ok\n"; } } }
END
    /usr/sbin/nginx -p "$work" -c "$work/nginx.conf" >nginx.said 2>&1 &
    nginx=$!
    echo "$nginx" >>servers
    await 10 curl -sf "http://127.0.0.1:$other/" -o nginx.first || failed "nginx: $(cat nginx.said)"
    for who in "ours $port" "nginx $other"; do
        # shellcheck disable=SC2086
        set -- $who
        wrk -t1 -c64 -d3s "http://127.0.0.1:$2/healthz" >"wrk.$1"
        ! grep -q 'Non-2xx\|Socket errors' "wrk.$1" || failed "wrk, $1: $(cat "wrk.$1")"
        h2load --h1 -t1 -c64 -D 3 "http://127.0.0.1:$2/healthz" >"h2load.$1" 2>&1
        [ "$1" = nginx ] || grep -q ' 0 failed, 0 errored, 0 timeout' "h2load.$1" ||
            failed "h2load: $(grep requests: "h2load.$1")"
    done
    ab -q -k -n 20000 -c 50 "http://127.0.0.1:$port/healthz" >ab 2>&1 || failed "ab: $(cat ab)"
    grep -q 'Failed requests: *0$' ab || failed "ab: $(grep 'Failed' ab)"
    kill -TERM "$nginx"
    wait "$nginx" || :
    rate() { sed -n 's/^Requests\/sec: *\([0-9]*\).*/\1/p' "wrk.$1"; }
    h2rate() { sed -n 's/^finished in .*, \([0-9.]*\) req\/s.*/\1/p' "h2load.$1"; }
    figure "wrk $(rate ours)/s (nginx $(rate nginx)), h2load $(h2rate ours)/s (nginx $(h2rate nginx)), 0 errors"
}

half_open() {
    python3 "$here/checks/http_upload_slow.py" "$port" 5000 "$1" >slow.said 2>&1 ||
        failed "half-open clients: $(tail -n 3 slow.said)"
    figure "$(cat slow.said)"
}

drained() {
    for n in $(seq 50); do
        head -c 300000 /dev/urandom >"last.$n"
        curl -sS --limit-rate 150k --form "file=@last.$n" "http://127.0.0.1:$port/upload" \
            -o "last.$n.answer" &
        echo $! >>last.pids
    done
    await 20 [ "$(descriptors)" -ge 60 ] || :
    sleep 1
    kill -TERM "$server"
    sleep 0.3
    ! curl -s --max-time 5 "http://127.0.0.1:$port/healthz" -o refused.answer ||
        failed "a new connection was served during the drain"
    while read -r pid; do wait "$pid" || failed "an upload was cut off by the drain"; done <last.pids
    status=0
    wait "$server" || status=$?
    [ "$status" -eq 0 ] || failed "the server left with status $status"
    for n in $(seq 50); do
        grep -q "$(sha256 "last.$n")" "last.$n.answer" || failed "last.$n: $(cat "last.$n.answer")"
        cmp -s "last.$n" "$store/last.$n" || failed "last.$n differs"
    done
    figure "SIGTERM during 50 uploads: all done, $(tail -n 1 "$log")"
}

full_disk() {
    mkdir full
    if ! mount -t tmpfs -o size=5m none full 2>/dev/null; then
        figure "full disk NOT tried (cannot mount)"
        return
    fi
    start http_upload --port 0 --dir full
    head -c 8000000 /dev/urandom >too-much
    status=$(curl -sS -o full.answer -w '%{http_code}' --form file=@too-much \
        "http://127.0.0.1:$port/upload") || :
    [ "$status" = 507 ] || failed "a full disk was answered with $status"
    grep -q 'cannot store too-much: No space left on device' "$log" || failed "no line of the full disk"
    [ -z "$(ls full)" ] || failed "a part of a file was left: $(ls full)"
    head -c 1000000 /dev/urandom >fits
    upload fits
    stop
    umount full
    figure "full disk: 507, and the next is stored"
}

check_http_upload() {
    store=$work/store
    mkdir "$store"
    start http_upload --port 0 --dir "$store" --idle 5 --grace 30
    sizes
    crowd
    slow_beside_fast
    browser
    load
    half_open 5
    [ "$(most_resident)" -lt 65536 ] || failed "the server took $(most_resident) KiB"
    figure "at most $(($(most_resident) / 1024)) MiB"
    [ -z "$(find "$store" -name '.*' -type f)" ] || failed "parts of files were left"
    drained
    full_disk
    did "curl, wrk, h2load, ab, Chromium, 5 000 half-open"
}
