#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which version answers, and where training goes on, after starts, kills and damage: nothing that was not promoted, nothing that was rolled back.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
settings='{"lr": 0.05, "round_steps": 5, "duty": 1, "nice": 0, "batch": 8, "batch_norm": "train", "batch_delay_ms": 0, "max_accuracy_drop": 1}'
model_folder "$settings"
train_body 1 200 > add.json
infer_body 1001 1001 > one.json
idle() { status && grep -q '"state":"idle"' answer; }
killed() {
    kill -9 "$pid"
    wait "$pid" 2> /dev/null
    pid=
}

# a candidate that waits for its promotion is the largest version, but not the one that answers after a start
begin
asks 200 -d @add.json "$model/train"
asks 200 -d '{"action":"start","settings":{"auto_promote":false}}' "$model/train"
if until_so at_least candidate 2; then pass; else fail 'no candidate'; fi
killed
begin
asks 200 -d @one.json "$model/infer"
says '"model_version":"1"'
# training goes on by itself, as it was asked for: however long it does, nothing is promoted
if until_so at_least rounds 3; then pass; else fail 'training did not go on after the kill'; fi
asks 200 "$model/versions"
says '"current":"1"'
# what was answered is so after a power cut: cancelled is cancelled
asks 200 -d '{"action":"cancel"}' "$model/train"
killed
begin
sleep 0.2
asks 200 "$model/train"
says '"state":"idle","wanted":false'
ends
# ... and a start is one, with its settings and rounds; there are no samples yet, so that it cannot be over before the kill
model_folder "$settings"
begin
asks 200 -d '{"action":"start","settings":{"rounds":3,"auto_promote":false,"lr":0.0123}}' "$model/train"
killed
begin
asks 200 -d @add.json "$model/train"
if until_so at_least rounds 3 && until_so idle; then pass; else fail 'training did not go on, or without an end'; fi
if [ "$(field rounds)" = 3 ] && [ "$(field version)" = 1 ] && [ "$(field lr)" = 0.0123 ]; then pass; else fail 'training went on otherwise than it was asked for'; fi
# one that waits for samples can be cancelled
ends
model_folder "$settings"
begin
asks 200 -d '{"action":"start"}' "$model/train"
asks 200 -d '{"action":"cancel"}' "$model/train"
if until_so idle; then pass; else fail 'what waits for samples was not cancelled'; fi
asks 200 -d @add.json "$model/train"

# rolled back, then killed before anything was saved: what was given up is not taken up again
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least version 3; then pass; else fail 'no version was promoted'; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
until_so idle
if [ -s models/digits/training/checkpoint.mest ]; then pass; else fail 'no checkpoint'; fi
asks 200 -d '{"action":"rollback","version":1}' "$model/train"
killed
if [ -e models/digits/training/checkpoint.mest ] || [ -e models/digits/training/checkpoint.mest.prev ]; then fail 'the checkpoint that was rolled back is there'; else pass; fi
begin
asks 200 -d @one.json "$model/infer"
says '"model_version":"1"'
cp answer untrained
asks 200 -d '{"action":"start","settings":{"auto_promote":false}}' "$model/train"
if until_so at_least rounds 2; then pass; else fail 'training did not begin anew'; fi
asks 200 -d @one.json "$model/infer"
if close answer untrained; then pass; else fail 'version 1 answers otherwise'; fi

# a damaged checkpoint: the one before it is used, which is said; both damaged: from the version that answers, which is said too
asks 200 -d '{"action":"cancel"}' "$model/train"
until_so idle
ends
checkpoint=models/digits/training/checkpoint.mest
flip() { printf '\377\0\377\0' | dd of="$1" bs=1 seek=3000 conv=notrunc 2> /dev/null; }
flip $checkpoint
begin
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least steps 1; then pass; else fail 'training did not go on'; fi
if grep -q 'using the checkpoint before it' err; then pass; else fail 'it is not said that the checkpoint before is used'; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
until_so idle
ends
flip $checkpoint
flip $checkpoint.prev
begin
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least steps 1; then pass; else fail 'training did not go on'; fi
says 'checksum'
ends

# `current` that names nothing: the model is not served with another version instead; the word is gone, and it is
echo 77 > models/digits/current
mkdir -p models/other/1
cp models/digits/1/model.onnx models/other/1
begin
asks 503 -d @one.json "$model/infer"
says 'current names no version'
asks 200 -d @one.json "$url/v2/models/other/infer"
ends

# a store that a power cut left without a header is made anew
rm -r models/other models/digits/current models/digits/training
mkdir models/digits/training
for bytes in 0 100 4096; do
    head -c $bytes /dev/zero > models/digits/training/samples.mest
    begin
    asks 200 -d @add.json "$model/train"
    says '"held":200'
    ends
    rm models/digits/training/samples.mest
done
finish
