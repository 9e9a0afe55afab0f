# SPDX-License-Identifier: Apache-2.0
# The upload server made of callbacks, under eight curls that never pause.
packages="curl"
seconds=300

loops=8
uploads=200

descriptors() { find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l; }
are_back() { [ "$(descriptors)" -le "$alone" ]; }
said() { grep -c ": $1" "$log" || true; }

# upload FILE: as a user would.
upload() {
    curl --silent --show-error --location --request POST "http://localhost:$port/upload" \
        --form "file=@$1" -w ' %{http_code} Total: %{time_total}\n'
}

# One endless loop, but for its end: files from 1 KB to 5 MB, one line an answer.
upload_often() {
    for n in $(seq "$uploads"); do
        upload "file.$(((n + $1) % 8))"
    done >"answers.$1"
}

check_executor_http() {
    start executor_http 0
    alone=$(descriptors)
    number=0
    for size in 1000 10000 65536 100000 300000 1000000 2000000 5000000; do
        head -c "$size" /dev/urandom >"file.$number"
        number=$((number + 1))
    done

    # A body of more than 1 MB comes only after the server has said 100.
    curl --silent --verbose --form file=@file.7 "http://localhost:$port/upload" \
        >/dev/null 2>expected
    grep -q '^< HTTP/1.1 100 ' expected || failed "the server did not say 100"
    # Two requests of one connection.
    curl --silent --form file=@file.0 "http://localhost:$port/one" --next --silent \
        --form file=@file.1 "http://localhost:$port/two" -w '%{num_connects}\n' >twice
    [ "$(grep -c '^received ' twice)" -eq 2 ] || failed "two requests: $(cat twice)"
    # What it cannot do it says.
    code=$(curl --silent -o /dev/null -w '%{http_code}' -H 'Transfer-Encoding: chunked' \
        -T file.0 "http://localhost:$port/upload")
    [ "$code" -eq 411 ] || failed "a body without a length was answered $code"
    before=$(said answered)

    began=$(date +%s%N)
    for loop in $(seq "$loops"); do
        upload_often "$loop" &
        echo $! >>loops
    done
    while read -r pid; do wait "$pid" || failed "a curl failed"; done <loops
    took=$((($(date +%s%N) - began) / 1000000))

    cat answers.* >answers
    all=$((loops * uploads))
    good=$(grep -c '^ 200 Total: ' answers || true)
    whole=$(grep -c '^received [0-9][0-9]* bytes$' answers || true)
    [ "$good" -eq "$all" ] && [ "$whole" -eq "$all" ] ||
        failed "of $all uploads $good were answered 200, $whole whole"
    [ $(($(said answered) - before)) -eq "$all" ] || failed "the log tells of other answers"
    [ "$(said 'new client')" -eq "$(($(said gone) + $(said refused)))" ] ||
        await 10 are_back || failed "clients were left"
    await 10 are_back || failed "$(descriptors) descriptors are open, $alone were"
    stop
    did "$loops curl loops of $uploads uploads, 1 KB to 5 MB"
    figure "$all of $all answered 200 in $took ms"
    figure "descriptors $alone, before and after"
}
