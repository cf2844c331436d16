#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kill -9 at twenty moments of one run, each time resumed: the final model is that of the run that was never interrupted, byte for byte, and
# nothing but the run's own files is left. The logs tell each thing once, as those of that run do.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
unset FAKE_ECHO
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
recipe="--data csv:$digits --limit 320 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 3 -t 2 -b 16 --epochs 10 --lr 0.05
    --sched cosine --sparsity 0.9 --scheme block --method mest-ems --mutate-every 2 --forget-epoch 5 --forget-remove 0.2 --augment pad1
    --checkpoint-steps 3 --log jsonl,csv --no-eval-before -q --progress off"
began=$(date +%s.%N)
# shellcheck disable=SC2086
gives 0 "$model" --train $recipe --output-dir straight
whole=$(awk "BEGIN { print $(date +%s.%N) - $began }")
kills=0 resume='' seed=$(awk 'BEGIN { srand(); print srand() }')
echo "moments by seed $seed"
while [ $kills -lt 20 ]; do
    # up to a twentieth of the whole run: some die before their first new checkpoint, all twenty together get about half way
    pause=$(awk "BEGIN { srand($seed + $kills); print 0.02 + rand() * $whole / 20 }")
    # shellcheck disable=SC2086
    "$run" "$model" --train $recipe --output-dir killed $resume > out 2> err < /dev/null &
    pid=$!
    sleep "$pause"
    if ! kill -9 $pid 2> /dev/null; then # it was faster
        wait $pid
        break
    fi
    wait $pid 2> /dev/null
    code=$?
    kills=$((kills + 1))
    if [ $code = 0 ]; then break; fi
    resume=--resume
done
echo "killed $kills times"
if [ -f killed/checkpoint.mest ]; then resume=--resume; fi
# shellcheck disable=SC2086
gives 0 "$model" --train $recipe --output-dir killed $resume
if cmp -s straight/model.onnx killed/model.onnx; then pass; else fail 'the models differ'; fi
if [ "$(ls -A killed | tr '\n' ' ')" = "$(ls -A straight | tr '\n' ' ')" ]; then pass
else fail "files left: $(ls -A killed | tr '\n' ' ') instead of $(ls -A straight | tr '\n' ' ')"; fi
json killed/log.jsonl
# what a log says without what depends on time, and of csv without the rows of steps: every ten seconds
events() {
    grep -E '"event":"(mutation|samples|epoch|summary)"' "$1/log.jsonl" | grep -v '"event":"summary"' |
        sed -E 's/"(time|seconds|scheduler_seconds|peak_bytes|held_bytes)":[^,}]*//g'
}
rows() { grep -v '^step,' "$1/log.csv" | cut -d, -f1-3,5-10,12,15-19,21; }
same_logs() {
    events straight > want
    events killed > got
    if [ -s want ] && cmp -s want got; then pass; else fail "log.jsonl after $1: $(diff want got | head -n 4 | cut -c1-200 | tr '\n' '|')"; fi
    rows straight > want
    rows killed > got
    if [ "$(wc -l < want)" -gt 20 ] && cmp -s want got; then pass; else fail "log.csv after $1: $(diff want got | head -n 4 | tr '\n' '|')"; fi
    if [ "$(grep -c '"event":"summary"' killed/log.jsonl)" = 1 ]; then pass; else fail "$1: not one summary"; fi
}
same_logs "$kills kills"

# right behind a mutation, whose step is that of the checkpoint before it, or one of the steps after that; twice at the same place
for method in rigl:every=6 deepr:temperature=1e-2 set; do
    recipe="--data csv:$digits --limit 320 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 3 -t 1 -b 16 --epochs 3 --lr 0.05 --sparsity 0.9
        --scheme csr --method $method --checkpoint-steps 4 --log jsonl,csv --no-eval-before -q --progress off"
    rm -rf straight killed
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --output-dir straight
    resume=''
    for number in 1 1 2 4; do
        # shellcheck disable=SC2086
        "$run" "$model" --train $recipe --cpu-share 10 --output-dir killed $resume > out 2> err < /dev/null &
        pid=$! resume=--resume
        while kill -0 $pid 2> /dev/null && [ "$(grep -c '"event":"mutation"' killed/log.jsonl 2> /dev/null)" -lt $number ] 2> /dev/null; do sleep 0.005; done
        kill -9 $pid 2> /dev/null
        wait $pid 2> /dev/null
    done
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --output-dir killed --resume
    same_logs "$method"
done
finish
