#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kill -9 while it serves, trains and takes samples, again and again: it starts every time, acknowledged samples are there, the version that
# answered last still answers, training goes on. test_serve_kill.sh PROGRAM DIGITS [KILLS]
serve=$1 digits=$2 kills=${3:-20}
. "$(dirname "$0")/serve_lib.sh"
model_folder '{"lr": 0.02, "round_steps": 3, "duty": 1, "nice": 0, "batch": 8, "batch_norm": "train", "sparsity": 0.5, "batch_delay_ms": 0, "max_accuracy_drop": 1}'
infer_body 7 7 > one.json
train_body 1 64 > first.json
train_body 65 68 > add.json
begin
asks 200 -d @first.json "$model/train"
asks 200 -d '{"action":"start"}' "$model/train"
held=64 seen=1 kill=1
while [ $kill -le "$kills" ]; do
    # requests of all kinds, until it dies
    (while curl -s -m 5 -d @one.json "$model/infer" -o infer.$kill; do cp infer.$kill infer.done; done) 2> /dev/null &
    asker=$!
    (while curl -s -f -m 5 -d @add.json "$model/train" -o add.$kill; do mv add.$kill add.done; done) 2> /dev/null &
    adder=$!
    sleep "0.$(((kill * 37) % 60 + 20))"
    kill -9 "$pid"
    wait "$pid" 2> /dev/null
    wait $asker $adder
    pid=
    [ ! -s add.done ] || held=$(grep -oE '"ever":[0-9]+' add.done | cut -d: -f2)
    v=$(grep -oE '"model_version":"[0-9]+' infer.done 2> /dev/null | grep -oE '[0-9]+$')
    seen=${v:-$seen}
    begin
    status
    if [ "$(field ever)" -ge "$held" ]; then pass; else fail "kill $kill: $(field ever) samples, $held had been acknowledged"; fi
    if [ "$(field version)" -ge "$seen" ]; then pass; else fail "kill $kill: version $(field version) answers, $seen had answered"; fi
    says '"damaged":0'
    says '"wanted":true'
    asks 200 -d @one.json "$model/infer"
    kill=$((kill + 1))
done
# SIGTERM in the middle of all that: it ends by itself, and each answer that came is a whole one
for turn in 1 2 3; do
    askers=
    for client in 1 2 3 4 5 6 7 8; do
        (while curl -s -f -m 5 -d @one.json "$model/infer" -o "term.$client"; do
            grep -q '"outputs".*]}$' "term.$client" || echo "half an answer" >> term.bad
        done) 2> /dev/null &
        askers="$askers $!"
    done
    sleep 0.4
    ends
    wait $askers
    begin
done
if [ -e term.bad ]; then fail 'half an answer'; else pass; fi
before=$(metric mest_train_steps_total)
more() { [ "$(metric mest_train_steps_total)" -gt "${before:-0}" ]; }
if until_so more; then pass; else fail 'training does not go on'; fi
ends
if [ -z "$(find models -name '.*' -o -name '*.tmp*')" ]; then pass; else fail "left behind: $(find models -name '.*' -o -name '*.tmp*' | head -n 3)"; fi
finish
