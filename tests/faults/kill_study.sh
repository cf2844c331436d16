#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kills runs of mest-run with SIGKILL at random moments, goes on with --resume, and compares what comes out with the run that was never killed.
#
#   tests/faults/kill_study.sh BUILD KILLS [SEED]
#
# Campaigns of twelve kills at most, over recipes of different schemes, methods, optimizers and numbers of threads. After every kill: the
# checkpoint that stands there is whole (a resumed run says so). At the end of a campaign: the same bytes, no other file in the folder.
build=$1 wanted=$2 seed=${3:-1}
top=$(cd "$(dirname "$0")/../.." && pwd)
run=$(cd "$build" && pwd)/tools/mest-run
digits=$top/examples/digits
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
common="--data csv:$digits/digits.csv.gz --limit 640 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 -b 16 --epochs 4 --lr 0.03
    --checkpoint-steps 3 --no-eval-before -q --progress off --log jsonl,csv"
recipes='-t 1 --seed 1 --sparsity 0.9 --scheme csr --method mest-ems --mutate-every 2 --forget-epoch 2 --forget-remove 0.2
-t 2 --seed 2 --sparsity 0.9 --scheme block --method mest-em --mutate-every 1 --augment pad1
-t 1 --seed 3 --sparsity 0.8 --scheme block16 --method rigl:every=10 --opt adamw
-t 2 --seed 4 --sparsity 0.8 --scheme pattern --method set:every=20 --sched cosine
-t 1 --seed 5 --scheme nm2:4 --dense-layers none --method mest-vanilla --mutate-every 2 --opt adamw
-t 1 --seed 6 --sparsity 0.7 --scheme csr --method magnitude:every=20
-t 2 --seed 7 --opt adamw --sched cosine'
now() { date +%s.%N; }
random() { awk "BEGIN { srand($seed * 100003 + $kills * 7 + $campaigns * 131 + $1); print rand() }"; }
kills=0 campaigns=0 failures=0 early=0 began=$(now) n=0
printf '%s\n' "$recipes" > recipes
n_recipes=$(wc -l < recipes)
while [ "$kills" -lt "$wanted" ]; do
    n=$((n % n_recipes + 1))
    recipe=$(sed -n "${n}p" recipes)
    rm -rf killed
    if [ ! -d "straight$n" ]; then
        from=$(now)
        # shellcheck disable=SC2086
        if ! "$run" "$digits/digits_cnn.onnx" --train $common $recipe --output-dir "straight$n" > out 2>&1; then
            echo "recipe $n does not run: $(tail -n 1 out)"
            exit 1
        fi
        eval "whole$n=$(awk "BEGIN { print $(now) - $from }")"
        find "straight$n" -mindepth 1 -printf '%f\n' | sort > "files$n"
    fi
    eval "whole=\$whole$n"
    campaigns=$((campaigns + 1)) here=0 resume=''
    while :; do
        if [ $here -lt 12 ] && [ "$kills" -lt "$wanted" ]; then
            limit=$(awk "BEGIN { print 0.01 + $(random 1) * $whole * 0.3 }")
        else
            limit=600
        fi
        # shellcheck disable=SC2086
        timeout --foreground -s KILL "$limit" "$run" "$digits/digits_cnn.onnx" --train $common $recipe --output-dir killed $resume > out 2>&1 < /dev/null
        code=$?
        if [ $code = 124 ]; then here=12 resume=--resume; continue; fi # it was done just then: the next round has nothing left to do
        if [ $code != 137 ]; then break; fi
        kills=$((kills + 1)) here=$((here + 1))
        if [ ! -f killed/checkpoint.mest ]; then early=$((early + 1)); fi
        if [ -f killed/checkpoint.mest ] || [ -f killed/checkpoint.mest.prev ]; then resume=--resume; fi
    done
    find killed -mindepth 1 -printf '%f\n' | sort > left
    if [ $code != 0 ]; then
        failures=$((failures + 1))
        echo "FAIL recipe $n after $here kills: exit code $code: $(tail -n 1 out)"
    elif ! cmp -s "straight$n/model.onnx" killed/model.onnx; then
        failures=$((failures + 1))
        echo "FAIL recipe $n after $here kills: another model"
    elif ! cmp -s "files$n" left; then
        failures=$((failures + 1))
        echo "FAIL recipe $n after $here kills: files left: $(tr '\n' ' ' < left)"
    fi
done
echo "$kills kills in $campaigns campaigns of $n_recipes recipes ($early before the first checkpoint), $failures failures, $(awk "BEGIN { printf \"%.0f\", $(now) - $began }") s"
[ $failures = 0 ]
