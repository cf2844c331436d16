# SPDX-License-Identifier: Apache-2.0
# Helpers of the service's tests; sourced with the program in $serve and the folder of the digits network in $digits. Works in a temporary folder.
passed=0 failed=0 skipped=0
absolute() { case $1 in /* | '') echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
serve=$(absolute "$serve") digits=$(absolute "$digits")
command -v curl > /dev/null || { echo "skipped: curl is not installed"; exit 77; }
work=$(mktemp -d) || exit 1
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2> /dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $*"
    [ ! -s answer ] || { head -c 400 answer | tr -c '[:print:]\n' '?' | sed 's/^/    answer: /'; echo; }
    sed 's/^/    stderr: /' err 2> /dev/null | tail -n 5
}
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

# model_folder [SETTINGS]: models/digits with the network as version 1, and config.json
model_folder() {
    rm -rf models
    mkdir -p models/digits/1
    cp "$digits/digits_cnn.onnx" models/digits/1/model.onnx
    [ -z "${1:-}" ] || echo "$1" > models/digits/config.json
}
# begin ARGUMENTS...: starts the service; $pid, $url, $model
begin() {
    rm -f port
    "$serve" models --port 0 --port-file port "$@" 2> err &
    pid=$!
    i=0
    while [ ! -s port ] && kill -0 "$pid" 2> /dev/null && [ $i -lt 600 ]; do
        sleep 0.05
        i=$((i + 1))
    done
    [ -s port ] || { fail "the service did not start"; finish; exit 1; }
    url=http://127.0.0.1:$(cat port)
    model=$url/v2/models/digits
}
# ends [SIGNAL]: stops it; the exit code must be 0
ends() {
    kill -"${1:-TERM}" "$pid"
    wait "$pid"
    code=$?
    pid=
    if [ "$code" = 0 ]; then pass; else fail "exit code $code"; fi
}
# asks STATUS CURL-ARGUMENTS...: the body is in ./answer, the header in ./head
asks() {
    want=$1
    shift
    got=$(curl -s -m 60 -o answer -D head -w '%{http_code}' "$@")
    if [ "$got" = "$want" ]; then pass; else fail "status $got instead of $want: $*"; fi
}
# says TEXT, lacks TEXT: a fixed string in the answer
says() { if grep -qF -e "$1" answer; then pass; else fail "no '$1' in the answer"; fi; }
lacks() { if grep -qF -e "$1" answer; then fail "'$1' in the answer"; else pass; fi; }
# numbers FILE: the values of its first "data", one a line. close FILE FILE: the same up to rounding, as far as the shorter one goes; kernels are
# chosen by the size of the batch, so the last digits may differ.
numbers() { grep -oE '"data":\[[^]]*' "$1" | head -n 1 | sed 's/.*\[//' | tr , '\n'; }
close() {
    numbers "$1" > close.1
    numbers "$2" > close.2
    paste close.1 close.2 | awk 'NF == 2 { d = $1 - $2; if (d > 1e-4 || d < -1e-4) bad = 1; n++ } END { exit n < 10 || bad }'
}
# metric NAME: its value for the digits model
metric() { curl -s "$url/metrics" | sed -n "s/^$1{model=\"digits\"} //p"; }
# field NAME: its value in the answer, the first of that name
field() { grep -oE "\"$1\":(\"[^\"]*\"|[^],}]*)" answer | head -n 1 | sed "s/^\"$1\"://; s/\"//g"; }
# image LINE: 64 pixels 0..16 of the bundled digits, as numbers 0..1 with commas. labels: label LINE
image() { gzip -dc "$digits/digits.csv.gz" | sed -n "$1p" | awk -F, '{ for (i = 1; i <= 64; i++) printf "%s%g", (i > 1 ? "," : ""), $i / 16 }'; }
# infer_body FROM TO: images FROM..TO as a request
infer_body() {
    gzip -dc "$digits/digits.csv.gz" | sed -n "$1,$2p" | awk -F, -v n=$(($2 - $1 + 1)) '
        BEGIN { printf "{\"id\":\"r\",\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[%d,1,8,8],\"data\":[", n }
        { for (i = 1; i <= 64; i++) printf "%s%g", (NR > 1 || i > 1 ? "," : ""), $i / 16 }
        END { printf "]}]}" }'
}
# train_body FROM TO: the same with labels, as samples to add
train_body() {
    gzip -dc "$digits/digits.csv.gz" | sed -n "$1,$2p" | awk -F, -v n=$(($2 - $1 + 1)) '
        BEGIN { printf "{\"action\":\"add\",\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[%d,1,8,8],\"data\":[", n }
        { for (i = 1; i <= 64; i++) printf "%s%g", (NR > 1 || i > 1 ? "," : ""), $i / 16; labels = labels (NR > 1 ? "," : "") $65 }
        END { printf "]}],\"labels\":[%s]}", labels }'
}
# until COMMAND...: repeats it until it succeeds, a minute at most
until_so() {
    tries=0
    while ! "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || return 1
        sleep 0.1
    done
}
# status: asks how training stands, into ./answer, without counting as a check. at_least NAME N: a number of it
status() { curl -s -m 60 -o answer "$model/train${1:-}"; }
at_least() { status && n=$(field "$1") && [ "${n%%.*}" -ge "$2" ] 2> /dev/null; }
# accuracy FROM TO: per cent of the images of those lines that are answered right
accuracy() {
    infer_body "$1" "$2" > acc.json
    curl -s -m 60 -d @acc.json "$model/infer" > acc
    gzip -dc "$digits/digits.csv.gz" | sed -n "$1,$2p" | cut -d, -f65 > labels
    numbers acc | paste - - - - - - - - - - | awk '{ b = 1; for (i = 2; i <= 10; i++) if ($i > $b) b = i; print b - 1 }' | paste - labels |
        awk '$1 == $2 { n++ } END { print int(100 * n / NR) }'
}
