#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What --method and --scheduler refuse before the first step, in which words and with which exit code, and what the table says of runs that
# begin with all weights.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
unset FAKE_ECHO
recipe="--data csv:$digits --limit 160 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --epochs 4 --lr 0.05 --sparsity 0.9 -t 1"
# refused CODE TEXT ARGUMENTS...
refused() {
    code_=$1 text_=$2
    shift 2
    # shellcheck disable=SC2086
    says "$code_" "$text_" "$model" --train $recipe -q --output-dir refused "$@"
    is_gone refused/log.jsonl
}

# one of a kind
refused 2 '--method mest-em and --scheduler mest both move weights' --method mest-em --scheduler mest
refused 2 '--method rigl and --scheduler set both move weights' --method rigl:every=5 --scheduler set:every=2
refused 2 '--scheduler snfs and --scheduler deepr both move weights' --scheduler snfs --scheduler deepr
refused 2 '--scheduler mest is given twice' --scheduler mest:freq=2 --scheduler mest
refused 2 '--scheduler forgetting is given twice' --scheduler forgetting:epoch=1,count=5 --scheduler forgetting:epoch=2,count=5
refused 2 '--forget-epoch and --scheduler forgetting are the same scheduler' --forget-epoch 2 --forget-remove 5 --scheduler forgetting:count=5
refused 2 '--forget-epoch and --scheduler sieve both choose the samples' --forget-epoch 2 --forget-remove 5 --scheduler sieve
for beside in '--scheduler set' '--scheduler sieve:freeze_from=1' '--method set --scheduler forgetting:epoch=2,count=5' '--method mest-em:freq=2,mode=vanilla' \
    '--method rigl:unit=epochs,every=2 --mutate-every 3'; do
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe -q $beside
done

# an option once, and a window with something in it
refused 2 "scheduler rigl: option 'rate' is given twice" --scheduler rigl:rate=.1,every=5,rate=.3
refused 2 "scheduler mest: option 'freq' is given twice" --method mest-em:freq=1,freq=2
refused 2 'no mutation is due between first=5 and last=1 (freq=5)' --method mest-em:first=5,last=1
refused 2 'no mutation is due between first=1 and last=2 (freq=3)' --method mest-ems:first=1,last=2 --mutate-every 3
refused 2 'scheduler rigl: no part of the run lies between start=0.9 and stop=0.1' --method rigl:start=.9,stop=.1
refused 2 'between start=1 and stop=1' --method set:start=1
refused 2 'between start=1 and stop=1' --method magnitude:start=1,stop=1
refused 2 'mode=oneshot with start=1 prunes after the last step' --method magnitude:mode=oneshot,start=1
refused 2 'give either rate or rounds' --method lottery:rate=.5,rounds=2
refused 2 '11 rounds of pruning and one before need at least 12 epochs, the run has 4' --method lottery
gives 0 "$model" --explain --sparsity 0.9 --method lottery # a plan has no epochs

# 2: an option; 8: the scheduler cannot do with the model, the scheme, or what another one did
refused 2 'rate=2 is not a number from 0 to 1' --method rigl:rate=2
refused 2 "there is no option 'alpha'" --scheduler rigl:alpha=.1
refused 8 'units of a balanced scheme cannot move' --method dsr --scheme nm2:8
for method in snfs lottery:rounds=2; do
    # shellcheck disable=SC2086
    gives 8 "$model" --train $recipe -q -b 16 --method $method --scheduler sieve:every=1,freeze_from=0
    has err 'is frozen'
done

# what was made sparse is said to be, and nothing else
for method in snip grasp magnitude lottery:rounds=2; do
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe -q --method $method
    has out '  before training'
    lacks out 'made sparse'
done
# shellcheck disable=SC2086
gives 0 "$model" --train $recipe -q
has out 'made sparse, before training'
finish
