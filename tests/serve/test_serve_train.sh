#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Training while serving: samples, start, versions that get better, cancel, promote, roll back, restart, the store of samples.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
recipe='"lr": 0.05, "round_steps": 15, "duty": 1, "nice": 0, "batch_norm": "train", "sparsity": 0.5, "scheme": "block4", "batch_delay_ms": 0, "max_batch": 64'
model_folder "{$recipe}"
begin

asks 200 "$model/train"
says '"state":"idle"'
train_body 1 400 > add.json
asks 200 -d @add.json "$model/train"
says '"held":400'
before=$(accuracy 1001 1064)
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least rounds 4; then pass; else fail 'four rounds did not end in a minute'; fi
after=$(accuracy 1001 1064)
if [ "$after" -ge $((before + 30)) ]; then pass; else fail "accuracy $before % before, $after % after"; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
idle() { status && grep -q '"state":"idle"' answer; }
if until_so idle; then pass; else fail 'training did not end'; fi
version=$(field version)
if [ "$version" -ge 2 ] && [ -s "models/digits/$version/model.onnx" ] && [ "$(cat models/digits/current)" = "$version" ]; then pass; else fail "version $version"; fi
says '"accuracy":'
asks 200 "$model/versions"
says "\"version\":\"$version\",\"current\":true,\"in_memory\":true,\"facts\":{\"version\":$version"
infer_body 1001 1001 > one.json
asks 200 -d @one.json "$model/infer"
says "\"model_version\":\"$version\""
cp answer trained

# back to the beginning, and forth again
asks 200 -d '{"action":"rollback","version":1}' "$model/train"
says '"version":"1"'
asks 200 -d @one.json "$model/infer"
says '"model_version":"1"'
if close answer trained; then fail 'version 1 answers as the trained one'; else pass; fi
asks 200 -d "{\"action\":\"promote\",\"version\":$version}" "$model/train"
asks 200 -d @one.json "$model/infer"
says "\"model_version\":\"$version\""
if close answer trained; then pass; else fail "version $version answers as another"; fi
asks 409 -d '{"action":"rollback","version":99}' "$model/train"
asks 404 -d '{"action":"promote","version":99}' "$model/train"
asks 400 -d '{"action":"promote"}' "$model/train"
asks 400 -d '{"action":"start","settings":{"lr":-1}}' "$model/train"
asks 400 -d '{"action":"start","settings":{"batch":1}}' "$model/train"
asks 400 -d '{"action":"none"}' "$model/train"

# what is wrong in samples is refused, and nothing of it is kept
zeros=$(awk 'BEGIN { for (i = 0; i < 64; i++) printf "%s0", (i ? "," : "") }')
add() { printf '{"action":"add","inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"data":[%s]}],"labels":%s}' "$1" "$2"; }
for body in "$(add "$zeros" '[10]')" "$(add "$zeros" '[-1]')" "$(add "$zeros" '[0.5]')" "$(add "$zeros" '[1,2]')" "$(add "$zeros" '[]')" "$(add "$zeros" '"1"')" \
    "$(add "$zeros,0" '[1]')" "$(add '0,1' '[1]')" "$(add "$(echo "$zeros" | sed 's/0$/1e999/')" '[1]')" '{"action":"add"}'; do
    asks 400 -d "$body" "$model/train"
done
status
says '"held":400'

# after a restart the same version answers, the samples are there, and training that was going on goes on
asks 200 -d '{"action":"start","settings":{"round_steps":10}}' "$model/train"
steps() { status && [ "$(field steps)" -gt "$1" ]; }
now=$(field steps)
if until_so steps "$now"; then pass; else fail 'training did not start again'; fi
ends
current=$(cat models/digits/current)
begin
asks 200 -d @one.json "$model/infer"
if [ "$(field model_version)" -ge "$current" ]; then pass; else fail "version $(field model_version) after a restart, $current before"; fi
status
says '"held":400'
says '"wanted":true'
if until_so steps 5; then pass; else fail 'training did not go on after a restart'; fi

# versions that are not promoted by themselves wait for it
asks 200 -d '{"action":"start","settings":{"auto_promote":false,"round_steps":5,"max_accuracy_drop":1}}' "$model/train"
if until_so at_least candidate 2; then pass; else fail 'no candidate'; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
until_so idle
candidate=$(field candidate)
asks 200 -d "{\"action\":\"promote\",\"version\":$candidate}" "$model/train"
says "\"version\":\"$candidate\",\"candidate\":0"

# the counters know it
asks 200 "$url/metrics"
says 'mest_train_steps_total{model="digits"}'
if [ "$(metric mest_train_steps_total)" -gt 0 ] && [ "$(metric mest_versions_published_total)" -gt 0 ]; then pass; else fail 'counters'; fi
ends

# a store with a flipped bit: that sample is left out; one that is no store, or of another model: refused, left alone, the model is served
printf '\377' | dd of=models/digits/training/samples.mest bs=1 seek=5000 conv=notrunc 2> /dev/null
begin
status
says '"held":399'
says '"damaged":1'
ends
for damage in 'printf X' 'head -c 5000 /dev/urandom' 'echo MESTREPL'; do
    $damage > models/digits/training/samples.mest
    cp models/digits/training/samples.mest kept
    begin
    asks 409 -d @add.json "$model/train"
    asks 200 -d @one.json "$model/infer"
    ends
    if cmp -s kept models/digits/training/samples.mest; then pass; else fail "a file that is no store was changed"; fi
done

# a good guest: paused while a file exists, and it goes on by itself
rm -r models/digits/training
echo "{$recipe, \"pause_file\": \"$work/pause\"}" > models/digits/config.json
begin
: > pause
asks 200 -d @add.json "$model/train"
asks 200 -d '{"action":"start"}' "$model/train"
paused() { status && grep -q '"state":"paused"' answer; }
if until_so paused; then pass; else fail 'no pause while the file exists'; fi
says 'exists'
infer_body 1 1 > one.json
asks 200 -d @one.json "$model/infer"
rm pause
if until_so at_least steps 5; then pass; else fail 'it does not go on when the file is gone'; fi
: > pause
if until_so paused; then pass; else fail 'no second pause'; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
if until_so idle; then pass; else fail 'a paused training cannot be ended'; fi
asks 200 -d '{"action":"start"}' "$model/train"
until_so paused
ends

# bounded: the newest stay
rm -r models/digits/training
echo "{$recipe, \"replay_bytes\": 65536}" > models/digits/config.json
begin
asks 200 -d @add.json "$model/train"
says '"ever":400'
held=$(field held)
if [ "$held" -lt 250 ] && [ "$(wc -c < models/digits/training/samples.mest)" -le 65536 ]; then pass; else fail "$held samples held"; fi
ends
finish
