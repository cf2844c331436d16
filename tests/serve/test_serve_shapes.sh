#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Axes that the file leaves free, and a class for each point of a sample: a small language model (tests/data/zoo/gpt-eval-17, token numbers of any length
# in, 40 numbers a token out) and a network for images (hrnet-eval-17-fresh, 5 classes a pixel).
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
zoo=$digits/../../tests/data/zoo
use() { # NAME SETTINGS
    rm -rf models
    mkdir -p models/digits/1
    cp "$zoo/$1/model.onnx" models/digits/1/model.onnx
    echo "$2" > models/digits/config.json
}
# tokens FROM LENGTH: numbers that look random, below 40
tokens() { awk -v from="$1" -v n="$2" 'BEGIN { for (i = 0; i < n; i++) printf "%s%d", (i ? "," : ""), (from * 7 + i * i * 11 + i) % 40 }'; }
words() { printf '{"inputs":[{"name":"idx","datatype":"INT64","shape":[1,%d],"data":[%s]}]}' "$1" "$2"; }

# ---- each length its own shape; what comes before is not changed by what comes after ----
use gpt-eval-17 '{"batch_delay_ms": 0, "max_axis": 12, "max_shapes": 2, "max_batch": 4}'
begin
asks 200 "$model"
says '"datatype":"INT64","shape":[-1,-1]'
says '"datatype":"FP32","shape":[-1,-1,40]'
words 12 "$(tokens 1 12)" > long.json
asks 200 -d @long.json "$model/infer"
says '"shape":[1,12,40]'
cp answer long
for n in 1 5 8 11 5 12 3; do
    words $n "$(tokens 1 $n)" > short.json
    asks 200 -d @short.json "$model/infer"
    says "\"shape\":[1,$n,40]"
    if close answer long; then pass; else fail "a prefix of length $n is answered otherwise"; fi
done
words 13 "$(tokens 1 13)" > wrong.json
asks 400 -d @wrong.json "$model/infer"
says 'max_axis'
words 0 '' > wrong.json
asks 400 -d @wrong.json "$model/infer"
words 4 '1,2,3' > wrong.json
asks 400 -d @wrong.json "$model/infer"
# not trained: nobody says how long its samples are
asks 409 "$model/train"
says 'sample_shape'
ends

# ---- lengths and what is wrong beside each other: everybody gets the own answer ----
use gpt-eval-17 '{"batch_delay_ms": 300, "max_batch": 16, "sample_shape": "8"}'
begin
words 8 "$(tokens 1 8)" > a.json
words 8 "$(tokens 1 7),40" > bad.json
words 5 "$(tokens 1 5)" > c.json
together=
for who in a bad c a bad c; do
    curl -s -m 60 -o "$who.answer" -w '%{http_code}' -d @$who.json "$model/infer" > $who.status &
    together="$together $!"
done
# shellcheck disable=SC2086
wait $together
for who in a c; do
    if [ "$(cat $who.status)" = 200 ] && close $who.answer long; then pass; else fail "$who: $(cat $who.status) $(head -c 200 $who.answer)"; fi
done
if [ "$(cat bad.status)" = 400 ]; then pass; else fail "a token that there is not: $(cat bad.status)"; fi

# ---- a class for each token ----
task() { # COUNT: samples whose labels are the tokens themselves, as nested arrays
    awk -v n="$1" 'BEGIN {
        for (r = 0; r < n; r++)
            for (i = 0; i < 8; i++) {
                v = (r * 7 + i * i * 11 + i * r) % 10
                data = data (r + i ? "," : "") v
                labels = labels (i ? "," : (r ? "],[" : "[")) v
            }
        printf "{\"action\":\"add\",\"inputs\":[{\"name\":\"idx\",\"datatype\":\"INT64\",\"shape\":[%d,8],\"data\":[%s]}],\"labels\":[%s]]}", n, data, labels }'
}
task 100 > add.json
asks 200 -d @add.json "$model/train"
says '"held":100'
asks 400 -d "$(task 1 | sed 's/\[\[./[[40/')" "$model/train"
asks 400 -d "$(task 1 | sed 's/\[\[.,/[[/')" "$model/train"
asks 400 -d "$(task 1 | sed 's/\[1,8\]/[1,7]/')" "$model/train"
asks 200 -d '{"action":"start","settings":{"lr":0.3,"round_steps":20,"duty":1}}' "$model/train"
if until_so at_least rounds 6; then pass; else fail 'no rounds'; fi
first=$(grep -oE '"accuracy":[0-9.e-]+' answer | head -n 1 | cut -d: -f2) last=$(grep -oE '"accuracy":[0-9.e-]+' answer | tail -n 1 | cut -d: -f2)
if awk "BEGIN { exit !($last > 0.5 && $last >= $first) }"; then pass; else fail "accuracy $first, then $last"; fi
ends

# ---- a class for each pixel ----
use hrnet-eval-17-fresh '{"batch_delay_ms": 0, "class_axis": "first", "batch": 4, "batch_norm": "train", "duty": 1, "nice": 0, "round_steps": 10, "lr": 0.1}'
begin
pixels() { # COUNT: the class of a pixel is 1 where the first channel is positive
    awk -v n="$1" 'BEGIN {
        srand(5)
        for (r = 0; r < n; r++) {
            for (i = 0; i < 768; i++) {
                v = rand() - 0.5
                data = data (r + i ? "," : "") sprintf("%.3f", v)
                if (i < 256)
                    labels = labels (r + i ? "," : "") (v > 0)
            }
        }
        printf "{\"action\":\"add\",\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[%d,3,16,16],\"data\":[%s]}],\"labels\":[%s]}", n, data, labels }'
}
asks 200 "$model"
says '"shape":[-1,5,16,16]'
pixels 40 > add.json
asks 200 -d @add.json "$model/train"
says '"held":40'
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least rounds 6; then pass; else fail "no rounds: $(field note)"; fi
last=$(grep -oE '"accuracy":[0-9.e-]+' answer | tail -n 1 | cut -d: -f2)
if awk "BEGIN { exit !(${last:-0} > 0.6) }"; then pass; else fail "accuracy $last of pixels"; fi
ends

# ---- what does not fit is said ----
for settings in '{"sample_shape": "8,8"}' '{"sample_shape": "0"}' '{"sample_shape": "8;8"}' '{"sample_shape": "x"}'; do
    use gpt-eval-17 "$settings"
    begin
    asks 409 "$model/train"
    says 'sample_shape'
    asks 200 -d @c.json "$model/infer"
    ends
done
finish
