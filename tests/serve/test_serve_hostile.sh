#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Hostile requests get a 4xx, or their connection ended, and the service goes on; who may ask.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
model_folder
begin --max-body 100000 --request-time 1500 --max-connections 20
infer_body 1 1 > one.json

# input ENTRY: a request with that entry of "inputs"
input() { printf '{"inputs":[%s]}' "$1"; }
zeros=$(awk 'BEGIN { for (i = 0; i < 64; i++) printf "%s0", i ? "," : "" }')
nan=$(awk 'BEGIN { for (i = 0; i < 63; i++) printf "0,"; printf "NaN" }')
huge=$(awk 'BEGIN { for (i = 0; i < 63; i++) printf "0,"; printf "1e999" }')
nested=$(awk 'BEGIN { for (i = 0; i < 5000; i++) printf "[" }')
for body in '' '{' '[]' 'null' '{"inputs":1}' '{"inputs":[]}' '{"inputs":[1]}' '{} {}' "$(input '{"name":"image"}')" \
    "$(input '{"name":"other","datatype":"FP32","shape":[1,1,8,8],"data":[0]}')" \
    "$(input '{"name":"image","datatype":"INT8","shape":[1,1,8,8],"data":[0]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8],"data":[0]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[0,1,8,8],"data":[]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[-1,1,8,8],"data":[]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1e18,1,8,8],"data":[]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1.5,1,8,8],"data":[]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8,8],"data":[0]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8,8],"data":["a"]}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8,8]}')" \
    "$(input "{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,8,8],\"data\":[$zeros,0]}")" \
    "$(input "{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,8,8],\"data\":[$nan]}")" \
    "$(input "{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,8,8],\"data\":[$huge]}")" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}')" \
    "$(input '{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":-1}}')" \
    "{\"outputs\":[{\"name\":\"none\"}],\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,8,8],\"data\":[$zeros]}]}" "$nested"; do
    asks 400 --data-raw "$body" "$model/infer"
    says '"error"'
done
# NaN in binary data
header='{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}]}'
{ printf %s "$header"; head -c 252 /dev/zero; printf '\000\000\300\177'; } > nan.bin
asks 400 -H "Inference-Header-Content-Length: ${#header}" --data-binary @nan.bin "$model/infer"
says 'no finite number'
asks 400 -H "Inference-Header-Content-Length: 99999" --data-binary @nan.bin "$model/infer"
asks 400 -H "Inference-Header-Content-Length: -5" --data-binary @nan.bin "$model/infer"

# too much: said by the header, or found while it comes
head -c 200000 /dev/zero > large
asks 413 --data-binary @large "$model/infer"
asks 413 -H 'Transfer-Encoding: chunked' --data-binary @large "$model/infer"
asks 415 -H 'Content-Encoding: gzip' -d @one.json "$model/infer"
path=$(head -c 2000 /dev/zero | tr '\0' a)
asks 414 "$url/$path"

# too slow: a body that trickles is cut off after 1.5 s, not when it is idle
head -c 6000 /dev/zero > slow
begun=$(date +%s)
got=$(curl -s -m 20 -o /dev/null -w '%{http_code}' --limit-rate 600 --data-binary @slow "$model/infer")
if [ "$got" = 408 ] || [ "$got" = 000 ]; then pass; else fail "slow request: status $got"; fi
if [ $(($(date +%s) - begun)) -le 8 ]; then pass; else fail "a slow request was suffered for $(($(date +%s) - begun)) s"; fi
# a connection that rests between two requests is not a slow one
if command -v bash > /dev/null; then
    port=${url##*:}
    got=$(bash -c 'exec 3<>/dev/tcp/127.0.0.1/'"${port%%/*}"'
        ask() { printf "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" >&3; IFS= read -r -t 5 line <&3; printf "%s" "${line%?}"; while IFS= read -r -t 1 line <&3; do :; done; }
        ask; sleep 3; ask' 2> /dev/null)
    if [ "$got" = 'HTTP/1.1 200 OKHTTP/1.1 200 OK' ]; then pass; else fail "two requests, 4 s apart, on one connection: '$got'"; fi
fi
if command -v bash > /dev/null; then
    for words in 'GARBAGE\r\n\r\n' 'GET / HTTP/9.9\r\n\r\n' 'POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n' \
        'POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{' '\000\001\002\r\n\r\n'; do
        timeout 10 bash -c "exec 3<> /dev/tcp/127.0.0.1/$(cat port); printf '$words' >&3; cat <&3" > raw 2> /dev/null
        code=$?
        if [ "$code" != 124 ] && ! grep -q '^HTTP/1.1 200' raw; then pass; else fail "raw '$words': $(head -n 1 raw)"; fi
    done
else
    skip 'no bash for raw requests'
fi
asks 200 "$url/metrics"
timeouts=$(sed -n 's/^mest_http_timeouts_total //p' answer)
if [ "${timeouts:-0}" -ge 2 ]; then pass; else fail "$timeouts requests were found too slow"; fi

# other origins and made-up host names
asks 403 -H 'Origin: http://evil.example' -d @one.json "$model/infer"
asks 403 -H 'Host: evil.example' "$url/v2"
asks 200 -H "Origin: $url" -d @one.json "$model/infer"
asks 200 -d @one.json "$model/infer"
ends

# a token
printf 'correct-horse-battery\n' > token
begin --token-file token
asks 401 "$url/v2"
asks 401 -H 'Authorization: Bearer correct-horse-batterz' "$url/v2"
asks 401 -d @one.json "$model/infer"
asks 401 "$url/metrics"
asks 200 "$url/v2/health/live"
asks 200 -H 'Authorization: Bearer correct-horse-battery' -d @one.json "$model/infer"
ends

# the command line
wrong() {
    "$serve" "$@" > out 2> err
    code=$?
    if [ "$code" = 2 ] && grep -q . err; then pass; else fail "exit code $code: $*"; fi
}
wrong
wrong models --port 70000
wrong models --port
wrong models --nothing
wrong models models
wrong models --address 0.0.0.0
printf 'short\n' > token
wrong models --token-file token
"$serve" none 2> err
if [ $? = 3 ]; then pass; else fail "a folder that is not there"; fi
echo '{"lr": -1}' > models/digits/config.json
"$serve" models --port 0 2> err
if [ $? = 3 ] && grep -q 'lr: no number in' err; then pass; else fail "a setting out of range"; fi
echo '{"lrr": 1}' > models/digits/config.json
"$serve" models --port 0 2> err
if [ $? = 3 ] && grep -q "no setting 'lrr'" err; then pass; else fail "an unknown setting"; fi
"$serve" --help > out
for option in --address --token-file --max-bodies --request-time; do
    if grep -q -e "$option" out; then pass; else fail "--help does not name $option"; fi
done
"$serve" --help-config > out
if grep -q 'replay_bytes' out; then pass; else fail "--help-config"; fi
finish
