#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What happens to the folder of models while they are served: files cut, replaced and removed, a second service, a disk that is full or may not be written to.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
settings='{"lr": 0.05, "round_steps": 5, "duty": 1, "nice": 0, "batch": 8, "batch_norm": "train", "batch_delay_ms": 0, "max_accuracy_drop": 1, "keep_versions": 2}'
train_body 1 200 > add.json
infer_body 1 1 > one.json
idle() { status && grep -q '"state":"idle"' answer; }
noted() { status && grep -qF "$1" answer; }

model_folder "$settings"
begin
asks 200 -d @add.json "$model/train"

# a second service on the folder answers, and does not train
"$serve" models --port 0 --port-file port2 2> err2 &
second=$!
if until_so test -s port2; then pass; else fail 'the second service does not start'; fi
first=$model
model=http://127.0.0.1:$(cat port2)/v2/models/digits
asks 200 -d @one.json "$model/infer"
asks 409 -d @add.json "$model/train"
says 'is used by another process'
asks 409 -d '{"action":"start"}' "$model/train"
model=$first
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least version 6; then pass; else fail 'no versions'; fi
asks 200 -d '{"action":"cancel"}' "$model/train"
if until_so idle; then pass; else fail 'training did not end'; fi
model=http://127.0.0.1:$(cat port2)/v2/models/digits
asks 200 -d @one.json "$model/infer"
says '"model_version":"1"'
model=$first
kill -TERM $second
wait $second
code=$?
if [ $code = 0 ]; then pass; else fail "exit code $code of the second service"; fi

# the file of the model is cut while it is at work: it answers, it trains; what would need the file says what is wrong with it
version=$(cat models/digits/current)
head -c 1000 models/digits/1/model.onnx > cut
cp cut models/digits/1/model.onnx
for other in models/digits/[2-9]*; do cp cut "$other/model.onnx"; done
asks 200 -d @one.json "$model/infer"
says "\"model_version\":\"$version\""
asks 400 -d '{"action":"rollback","version":1}' "$model/train"
says 'model.onnx'
asks 200 -d @one.json "$model/infer"
says "\"model_version\":\"$version\""
status
steps=$(field steps)
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least steps $((steps + 20)); then pass; else fail 'it does not train on'; fi
: > models/digits/1/model.onnx
if until_so at_least steps $((steps + 40)); then pass; else fail 'it does not train on'; fi
asks 200 -d @one.json "$model/infer"
# the whole folder is gone: it answers; training ends and says why
away() { rm -rf models/digits 2> /dev/null; } # fails while something is written in it
if until_so away; then pass; else fail 'the folder cannot be removed'; fi
if until_so idle; then pass; else fail 'it trains without its folder'; fi
says 'No such file or directory'
asks 200 -d @one.json "$model/infer"
ends

# disks: small file systems in memory, where they may be mounted
mkdir disk
if ! mount -t tmpfs -o size=400k none disk 2> /dev/null; then
    skip 'no small file system may be mounted here'
    finish
    exit
fi
trap '[ -z "$pid" ] || kill -9 "$pid" 2> /dev/null; umount -l "$work/disk"; rm -rf "$work"' EXIT
model_folder "$settings"
cp -r models disk
ln -s "$PWD/add.json" "$PWD/one.json" disk
cd disk || exit 1
begin
held=0
while [ "$held" -lt 2000 ] && curl -s -f -m 60 -o answer -d @add.json "$model/train"; do held=$(field held); done
asks 507 -d @add.json "$model/train"
cd .. # the answers have to go somewhere
asks 507 -d @add.json "$model/train"
says 'No space left on device'
status
if [ "$(field held)" = "$held" ] && [ "$held" -ge 200 ]; then pass; else fail "$held samples before the disk was full, $(field held) after"; fi
# no room for a checkpoint: training ends and says so, answers go on; with room it goes on
asks 200 -d '{"action":"start"}' "$model/train"
if until_so noted 'No space left on device'; then pass; else fail 'a full disk is not told of'; fi
if until_so idle; then pass; else fail 'it trains on a full disk'; fi
asks 200 -d @one.json "$model/infer"
mount -o remount,size=8m disk
asks 200 -d '{"action":"start"}' "$model/train"
if until_so at_least version 2; then pass; else fail 'with room there is no version either'; fi
lacks 'No space'
asks 200 -d @add.json "$model/train"
says "\"held\":$((held + 200))"
ends
if [ -z "$(find disk/models -name '.*' -o -name '*.tmp*')" ]; then pass; else fail "left behind: $(find disk/models -name '.*' -o -name '*.tmp*' | head -n 3)"; fi
# a folder that may not be written to: served, not trained
if mount -o remount,ro disk; then
    rm -rf models
    ln -s disk/models models
    begin
    asks 200 -d @one.json "$model/infer"
    asks 409 -d @add.json "$model/train"
    says 'Read-only file system'
    ends
else
    skip 'the file system cannot be mounted for reading alone'
fi
finish
