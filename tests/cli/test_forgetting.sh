#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Data efficiency end to end: two phases by fraction, count and number of forgetting events, order files out and in, balance of classes,
# statistics that live through resumes, the saving that was promised.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
recipe="--data csv:$digits --limit 640 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 1 -b 32 --lr 0.05 --epochs 8 --sparsity 0.9
    --scheme csr --mutate-every 2 --no-eval-before"
# removed LOG: samples that the run left out
removed() { grep '"event":"samples"' "$1/log.jsonl" | sed 's/.*forgetting: \([0-9]*\) samples removed.*/\1/' | tail -n 1; }
steps() { tail -n 1 "$1/log.jsonl" | "$json_lines" summary steps; }
is() { if [ "$1" = "$2" ]; then pass; else fail "$3: $1 instead of $2"; fi; }
# shellcheck disable=SC2086
{
    gives 0 "$model" --train $recipe --output-dir fraction --forget-epoch 3 --forget-remove 0.25 -v
    is "$(removed fraction)" 160 'a fraction of .25'
    is "$(steps fraction)" $((3 * 20 + 5 * 15)) 'steps: 20 an epoch, then 15'
    has err 'learned and never forgotten'
    has err 'class 3: '
    gives 0 "$model" --train $recipe --output-dir count --forget-epoch 3 --forget-remove 97
    is "$(removed count)" 97 'a count'
    is "$(grep '"event":"samples"' count/log.jsonl | sed 's/.*"active_samples":\([0-9]*\).*/\1/')" 543 'samples that remain'

    # what is counted is written, and decides
    gives 0 "$model" --train $recipe --output-dir free --scheduler forgetting:epoch=4,max_forgets=0,export=order.csv --method mest-em
    is "$(wc -l < order.csv)" 641 'lines of the order file'
    never=$(awk -F, 'NR > 1 && $2 == 0 && $3 == 1' order.csv | wc -l)
    once=$(awk -F, 'NR > 1 && $2 <= 1 && $3 == 1' order.csv | wc -l)
    is "$(removed free)" "$never" 'learned and never forgotten'
    gives 0 "$model" --train $recipe --output-dir one --forget-epoch 4 --forget-max 1
    is "$(removed one)" "$once" 'forgotten once at most'
    if [ "$never" -gt 0 ] && [ "$once" -gt "$never" ]; then pass; else fail "$never never forgotten, $once at most once"; fi

    # an order from a file, at once; the same samples as a sort by the file
    gives 0 "$model" --train $recipe --output-dir imported --scheduler forgetting:import=order.csv,max_forgets=0 --method mest-em
    is "$(removed imported)" "$never" 'imported'
    is "$(steps imported)" $((8 * ((640 - never + 31) / 32))) 'steps of a run that begins with fewer samples'
    gives 0 "$model" --train $recipe --output-dir again --scheduler forgetting:import=order.csv,epoch=1,count=100,export=./again.csv --method mest-em
    if cmp -s order.csv again.csv; then pass; else fail 'an imported order is not what is exported'; fi

    # the same share of every class
    gives 0 "$model" --train $recipe --output-dir balanced --scheduler forgetting:epoch=4,fraction=.5,class_balance=yes --method mest-em -v
    grep -o 'class [0-9]: [0-9]* -> [0-9]*' err > classes
    is "$(wc -l < classes)" 10 'classes'
    if awk '{ d = $3 / 2 - $5; if (d > 1 || d < -1) bad = 1 } END { exit bad }' classes; then pass; else fail "not balanced: $(tr '\n' ' ' < classes)"; fi

    # statistics live through a resume, in the middle of phase 1 too
    gives 0 "$model" --train $recipe --output-dir whole --scheduler forgetting:epoch=4,fraction=.3,export=whole.csv --method mest-em -o whole.onnx
    for lines in 9 33 51 75 102; do
        rm -rf cut cut.csv
        "$run" "$model" --train $recipe --output-dir cut --scheduler forgetting:epoch=4,fraction=.3,export=whole.csv --method mest-em --checkpoint-steps 1 \
            --log-interval 1 --json 2> err | head -n $lines > out
        cp whole.csv before.csv
        gives 0 "$model" --train $recipe --output-dir cut --scheduler forgetting:epoch=4,fraction=.3,export=whole.csv --method mest-em --resume
        if cmp -s whole.onnx cut/model.onnx; then pass; else fail "resumed after $lines lines: another model"; fi
        if cmp -s whole.csv before.csv; then pass; else fail "resumed after $lines lines: other statistics"; fi
    done

    # where counts are written to is free: the folder of --output-dir gets them, and a checkpoint goes on without that folder
    gives 0 "$model" --train $recipe --forget-epoch 4 --forget-remove .3 --method mest-em --output-dir kept --checkpoint-every 3 -o kept.onnx
    gives 0 "$model" --train $recipe --forget-epoch 4 --forget-remove .3 --method mest-em --resume kept/checkpoint.mest.prev -o elsewhere.onnx
    if cmp -s kept.onnx elsewhere.onnx; then pass; else fail 'resumed without the folder: another model'; fi
    says 2 "not 'epoch=4,remove=.2'" "$model" --train $recipe --forget-epoch 4 --forget-remove .2 --method mest-em --resume kept/checkpoint.mest.prev -q -o elsewhere.onnx

    gives 2 "$model" --train $recipe --forget-epoch 3 --forget-remove 640 # before the first step
    has err '640 of 640 samples to remove and 0 to keep leave none'
    says 2 '--forget-epoch needs' "$model" --train $recipe --forget-epoch 3
    gives 5 "$model" --train $recipe --scheduler forgetting:import=nowhere.csv,count=3
    has err 'cannot read nowhere.csv'
}
finish
