#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs that meet a damaged checkpoint, another run in their folder, a clock that jumps, a disk that fills up, damaged images.
run=$1 json_lines=$2 examples=$5 shim=$6
case $shim in /*) ;; *) shim=$PWD/$shim ;; esac
case $examples in /*) ;; *) examples=$PWD/$examples ;; esac
. "$(dirname "$0")/../cli/lib.sh"
unset FAKE_ECHO
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
recipe="--data csv:$digits --limit 96 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 3 -t 1 -b 32 --epochs 3 --lr 0.05
    --sparsity 0.9 --scheme block --method mest-em --mutate-every 1 --checkpoint-steps 2 --no-eval-before --progress off"
same() { if cmp -s "$1" "$2"; then pass; else fail "$3: $1 and $2 differ"; fi; }
# shellcheck disable=SC2086
train() { gives "$1" "$model" --train $recipe --output-dir "$2" $3 $4; }

train 0 straight
# ---- a damaged checkpoint: refused, the one before it used, and said ----
gives 0 "$model" --train $recipe --output-dir stopped
size=$(wc -c < stopped/checkpoint.mest)
cp stopped/checkpoint.mest good
cp stopped/checkpoint.mest.prev good.prev
awk_seed=7
for n in 1 2 3 4 5 6 7 8; do
    at=$(awk "BEGIN { srand($awk_seed + $n); print int(rand() * $size) }")
    rm -rf damaged
    mkdir damaged
    cp good damaged/checkpoint.mest
    cp good.prev damaged/checkpoint.mest.prev
    case $n in
    [1-4]) head -c "$at" good > damaged/checkpoint.mest ;;
    *)
        byte=$(od -An -tu1 -j "$at" -N 1 good | tr -d ' ')
        # one bit of one byte is turned
        # shellcheck disable=SC2059
        printf "$(printf '\\%03o' $((byte ^ 16)))" | dd of=damaged/checkpoint.mest bs=1 seek="$at" conv=notrunc 2> /dev/null ;;
    esac
    train 0 damaged --resume
    has err 'using the checkpoint before it'
    same straight/model.onnx damaged/model.onnx "damage $n at $at"
done
# both damaged: refused with both names, nothing is overwritten
rm -rf damaged
mkdir damaged
head -c 900 good > damaged/checkpoint.mest
head -c 1000 good.prev > damaged/checkpoint.mest.prev
train 5 damaged --resume
has err 'checkpoint.mest.prev'
if [ "$(wc -c < damaged/checkpoint.mest)" = 900 ] && [ ! -e damaged/model.onnx ]; then pass; else fail 'a damaged checkpoint was replaced'; fi
# the checkpoint is gone, its predecessor is there (killed between two renames, where the file system has no links): it serves
rm -rf damaged
mkdir damaged
cp good.prev damaged/checkpoint.mest.prev
train 0 damaged --resume
lacks err 'begins at its beginning'
same straight/model.onnx damaged/model.onnx 'only the checkpoint before is left'
# --overwrite: nothing of the earlier run can come back
cp good.prev damaged/checkpoint.mest.prev
gives 0 "$model" --train $recipe --max-steps 1 --checkpoint-every 9 --output-dir damaged --overwrite
if cmp -s good.prev damaged/checkpoint.mest.prev; then fail 'the predecessor of an overwritten run is still there'; else pass; fi

# ---- every scheme goes on, with all that is watched ----
for scheme in csr block4 punched8x4 pattern nm2:4; do
    s=0.8
    case $scheme in nm*) s=0.5 ;; esac
    more="--scheme $scheme --sparsity $s --method set:every=2 --log jsonl,csv"
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe $more --output-dir "all-$scheme"
    rm -rf half
    mkdir half
    cp "all-$scheme/checkpoint.mest.prev" half/checkpoint.mest
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe $more --output-dir half --resume
    same "all-$scheme/model.onnx" half/model.onnx "$scheme goes on"
done

# ---- two processes in one folder ----
# shellcheck disable=SC2086
"$run" "$model" --train $recipe --epochs 3000 --output-dir shared > first 2>&1 < /dev/null &
pid=$!
i=0
while ! [ -s shared/lock ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i + 1)); done
for mode in '' --resume --overwrite; do
    train 5 shared $mode
    has err "in use by another run (process $pid)"
done
kill -9 $pid
wait $pid 2> /dev/null
train 0 shared --overwrite # a lock of the dead binds nobody
same straight/model.onnx shared/model.onnx 'after a process that died'

# ---- a wall clock that jumps by years ----
if FAULT_CLOCK=1 LD_PRELOAD=$shim "$run" --version > /dev/null 2>&1; then
    FAULT_CLOCK=1 LD_PRELOAD=$shim
    export FAULT_CLOCK LD_PRELOAD
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --output-dir clock --json --log-interval 1
    unset FAULT_CLOCK LD_PRELOAD
    same straight/model.onnx clock/model.onnx 'a clock that jumps'
    seconds=$("$json_lines" summary seconds < out 2> /dev/null)
    if awk "BEGIN { exit !($seconds >= 0 && $seconds < 600) }"; then pass; else fail "a clock that jumps: the run took '$seconds' seconds"; fi
else
    skip 'libraries cannot be preloaded into this build'
fi

# ---- a disk that fills up: a small file system in memory, where one may be mounted ----
mkdir disk
if mount -t tmpfs -o size=300k none disk 2> /dev/null; then
    # shellcheck disable=SC2086
    gives 5 "$model" --train $recipe --epochs 40 --output-dir disk/run
    has err 'No space left on device'
    mount -o remount,size=4m disk
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --epochs 40 --output-dir disk/run --resume
    # shellcheck disable=SC2086
    gives 0 "$model" --train $recipe --epochs 40 --output-dir disk/straight
    same disk/straight/model.onnx disk/run/model.onnx 'a disk that was full'
    umount disk
else
    skip 'no small file system may be mounted here'
fi
finish
