#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What --method and --scheduler refuse before the first step, in which words and with which exit code, and what the table says of runs that
# begin with all weights.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
recipe="--data csv:$digits --limit 160 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --epochs 4 --lr 0.05 --sparsity 0.9 -t 1"
# refused CODE TEXT ARGUMENTS...
refused() {
    code_=$1 text_=$2
    shift 2
    # shellcheck disable=SC2086
    says "$code_" "$text_" "$model" --train $recipe -q --output-dir refused "$@"
    is_gone refused/log.jsonl
}

# late TEXT ARGUMENTS...: the length of the run makes the options wrong, which is known before the first step
late() {
    text_=$1
    shift
    # shellcheck disable=SC2086
    says 2 "$text_" "$model" --train $recipe -q -o late.onnx "$@"
    is_gone late.onnx
}

# one of a kind
refused 2 '--method mest-em and --scheduler mest both move weights' --method mest-em --scheduler mest
refused 2 '--method rigl and --scheduler set both move weights' --method rigl:every=5 --scheduler set:every=2
refused 2 '--scheduler snfs and --scheduler deepr both move weights' --scheduler snfs --scheduler deepr
refused 2 '--scheduler mest is given twice' --scheduler mest:freq=2 --scheduler mest
refused 2 '--scheduler forgetting is given twice' --scheduler forgetting:epoch=1,count=5 --scheduler forgetting:epoch=2,count=5
refused 2 '--forget-epoch and --scheduler forgetting are the same scheduler' --forget-epoch 2 --forget-remove 5 --scheduler forgetting:count=5
refused 2 '--forget-epoch and --scheduler sieve both choose the samples' --forget-epoch 2 --forget-remove 5 --scheduler sieve
for beside in '--scheduler set' '--scheduler sieve:freeze_from=1' '--method set --scheduler forgetting:epoch=2,count=5' '--method mest:freq=2,mode=vanilla' \
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
late 'the last of the run' --method magnitude:mode=oneshot,start=.999
late 'no multiple of every=100 steps is between start=0.99 and stop=0.999' --method magnitude:start=.99,stop=.999
late 'no multiple of every=100 epochs is between start=0.9 and stop=1' --method magnitude:unit=epochs,start=.9,stop=1
late 'batches=40 take all 5 steps of the run' --method snip:batches=40 --max-steps 5
late 'no mutation is due in the run' --method mest-em:first=7 --start-dense
refused 2 'give either rate or rounds' --method lottery:rate=.5,rounds=2
refused 2 '11 rounds of pruning and one before need at least 12 epochs, the run has 4' --method lottery
gives 0 "$model" --explain --sparsity 0.9 --method lottery # a plan has no epochs

# a dense start needs somebody who makes it sparse
for method in static set deepr dsr rigl snfs; do
    refused 2 "--start-dense: $method keeps the number of weights" --method $method --start-dense
    has err 'mest-vanilla, mest-em, mest-ems, magnitude, lottery, snip, grasp'
done
refused 2 '--start-dense: set keeps the number' --scheduler set --start-dense
for beside in '--method mest-vanilla' '--method mest-em' '--method mest-ems' '--method magnitude' '--scheduler magnitude' '--scheduler mest' '--method snip' '--method grasp'; do
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe -q --start-dense $beside
    has out '90.00 %'
done

# the target is reached however the run ends
for beside in '--method lottery:rounds=2' '--method mest-ems --mutate-every 1' '--method magnitude'; do
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe -q --epochs 8 --max-steps 12 $beside
    has out '90.00 %'
done

# idle TEXT ARGUMENTS...: a run of 4 epochs of 5 steps in which nothing moves says so, and goes on
idle() {
    text_=$1
    shift
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe "$@"
    has err "$text_"
}
idle 'rigl: nothing will move in this run: it has 4 epochs (20 steps), and updates are every=100 steps from start=0 to stop=0.75' --method rigl
idle 'rigl: nothing will move' --method rigl:unit=epochs,every=5
idle 'set: nothing will move' --method set:start=.9,stop=.95
idle 'set: nothing will move' --method set:every=4
idle 'set: nothing will move' --scheduler set:unit=steps,every=200
idle 'dsr: nothing will move' --method dsr:unit=epochs
idle 'snfs: nothing will move' --method snfs:every=4
idle 'deepr: nothing will move' --method deepr:start=.999,stop=.9995
idle 'mest: nothing will move' --method mest-em:first=7
idle 'mest: nothing will move' --method mest-em:freq=1,first=3,last=3
idle 'mest: nothing will move in this run: it has 1 epoch (5 steps)' --epochs 1
idle 'sieve: no samples change places' --scheduler sieve
idle 'forgetting: the run ends before samples would be removed' --epochs 8 --max-steps 9 --forget-epoch 6 --forget-remove .3
idle 'snip: batches=40: an epoch has 5' --method snip:batches=40
idle 'goes 97 % of the way' --method magnitude:stop=1,every=7
for method in rigl:every=5 set set:every=3 dsr:unit=epochs,every=2 snfs mest-em mest-ems deepr magnitude snip:batches=4; do
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --method $method
    lacks err 'warning'
done

# two that say the same
refused 2 'mode=ems contradicts the name' --method mest-vanilla:mode=ems
refused 2 '--method rigl:unit=steps counts steps' --method rigl:unit=steps --mutate-every 1
idle '--mutate-every has no effect: --method mest-em says freq=' --method mest-em:freq=3 --mutate-every 1
idle '--mest-lambda has no effect: --method mest-em says lambda=' --method mest-em:lambda=.5 --mest-lambda .1
idle '--mutate-every has no effect: --method rigl says every=' --method rigl:every=5 --mutate-every 1
idle '--mutate-every has no effect: weights are moved by a --scheduler' --scheduler set:rate=.2 --mutate-every 2
idle '--mutate-every has no effect: the pattern is static' --method static --mutate-every 2
printf 'prune_ratios:\n  conv2.weight: 0.5\n' > ratios.yaml
idle '--sparsity has no effect: --ratios says it' --ratios ratios.yaml
printf 'xx. xx. ...\n' > masks.txt
idle '--patterns has no effect' --patterns masks.txt --scheme csr

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
