#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Memory stays flat over train and promote cycles, roll backs (in memory and from the folder), answers and samples; so does the folder.
# test_serve_memory.sh PROGRAM DIGITS [ROUNDS]
serve=$1 digits=$2 rounds=${3:-60}
. "$(dirname "$0")/serve_lib.sh"
# AddressSanitizer keeps what was freed for a while: resident memory says nothing there
if grep -q __asan_init "$serve"; then
    echo 'skipped: built with AddressSanitizer'
    exit 77
fi
model_folder '{"lr": 0.02, "round_steps": 2, "duty": 1, "nice": 0, "batch": 8, "batch_norm": "train", "sparsity": 0.5, "scheme": "block4", "batch_delay_ms": 0, "max_batch": 64,
    "max_accuracy_drop": 1, "keep_versions": 6, "replay_bytes": 65536, "scheduler": "mest", "scheduler_options": "mode=vanilla,freq=3"}'
begin
resident() { curl -s "$url/metrics" | sed -n 's/^process_resident_memory_bytes //p' | awk '{ print int($1 / 1024) }'; }
train_body 1 200 > add.json
infer_body 1 64 > many.json
infer_body 1 1 > one.json
asks 200 -d @add.json "$model/train"
asks 200 -d '{"action":"start"}' "$model/train"
# cycle ROUNDS: lets it train so many rounds more, with all kinds of requests meanwhile. A roll back ends the round that is going on: the next one
# waits until a round came through. How long it all takes is the machine's business; only requests without a single step between them are a failure.
cycle() {
    status
    goal=$(($(field rounds) + $1)) turn=0 still=0 steps=-1 rolled=$(field rounds)
    while ! at_least rounds "$goal"; do
        now=$(field rounds) turn=$((turn + 1)) still=$((still + 1))
        if [ "$(field steps)" != "$steps" ]; then steps=$(field steps) still=0; fi
        [ "$(field wanted)" = true ] || { fail 'training ended'; return; }
        [ $still -lt 3000 ] || { fail "no step while $still turns of requests were answered"; return; }
        curl -s -d @many.json "$model/infer" -o /dev/null
        curl -s -d @one.json "$model/infer" -o /dev/null
        curl -s -d @add.json "$model/train" -o /dev/null
        curl -s "$url/" -o /dev/null
        [ "$now" -gt "$rolled" ] || continue
        if [ $((turn % 8)) = 0 ]; then
            curl -s -d '{"action":"rollback","version":1}' "$model/train" -o /dev/null
            rolled=$now
        elif [ $((turn % 4)) = 0 ]; then
            curl -s -d '{"action":"rollback"}' "$model/train" -o /dev/null
            rolled=$now
        fi
    done
}
cycle 30
before=$(resident)
cycle "$rounds"
after=$(resident)
echo "resident memory $before KiB after 30 rounds, $after KiB after $rounds more"
if [ $((after - before)) -le 4096 ]; then pass; else fail "memory grew from $before to $after KiB"; fi
kept=$(find models/digits -name model.onnx | wc -l)
if [ "$kept" -le 9 ]; then pass; else fail "$kept versions in the folder"; fi
bytes=$(curl -s "$url/metrics" | sed -n 's/^mest_version_bytes{model="digits"} //p')
if [ "${bytes%%.*}" -le 2000000 ]; then pass; else fail "$bytes bytes of versions"; fi
ends
finish
