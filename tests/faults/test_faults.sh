#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files that fail, disks that are full, processes that die at any call on a file: nothing is lost but the work since the last checkpoint, and
# the run that goes on is the one that would have been, byte for byte. FAULTS_ALL=1: every call, not every few.
run=$1 json_lines=$2 examples=$5 shim=$6
case $shim in /*) ;; *) shim=$PWD/$shim ;; esac
. "$(dirname "$0")/../cli/lib.sh"
unset FAKE_ECHO
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
recipe="--data csv:$digits --limit 96 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 3 -t 1 -b 32 --epochs 2 --lr 0.05
    --sparsity 0.9 --scheme csr --method mest-ems --mutate-every 1 --checkpoint-steps 2 --no-eval-before -q --progress off --log jsonl,csv,tensorboard"
# shellcheck disable=SC2086
train() { "$run" "$model" --train $recipe "$@" > out 2> err < /dev/null; }
faulty() { # FAULT ARGUMENTS...
    FAULT=$1
    shift
    FAULT=$FAULT FAULT_FOLDER=$work LD_PRELOAD=$shim train "$@"
}
if ! train --output-dir straight; then fail 'a run without faults fails'; finish; exit 1; fi
if ! FAULT=file:0:nothing FAULT_FOLDER=$work FAULT_COUNT=$work/count LD_PRELOAD=$shim "$run" --version > /dev/null 2>&1 || [ ! -s count ]; then
    skip 'libraries cannot be preloaded into this build'
    finish
    exit 77
fi
ls -A straight | grep -v -e '^events' -e '^pattern-start' > files # events: one file a process
# goes_on NAME: the same command again, without faults, ends in the same bytes and the same files
goes_on() {
    if train --output-dir "$work/broken" --resume; then pass; else fail "$1: does not go on"; fi
    if cmp -s straight/model.onnx broken/model.onnx; then pass; else fail "$1: another model"; fi
    ls -A broken | grep -v -e '^events' -e '^pattern-start' > left
    if cmp -s files left; then pass; else fail "$1: files left: $(tr '\n' ' ' < left)"; fi
}
count_of() { # CALL: how many of them a run makes in a folder of its own
    rm -rf "$work/counted"
    FAULT=$1:0:nothing FAULT_FOLDER=$work FAULT_COUNT=$work/count LD_PRELOAD=$shim train --output-dir "$work/counted"
    cat count
}
every() { # CALL WHAT STRIDE OFFSET
    calls=$(count_of "$1")
    if [ "$calls" -ge "$5" ]; then pass; else fail "only $calls calls of $1"; fi
    stride=$3 n=$4 tried=0
    if [ -n "$FAULTS_ALL" ]; then stride=1 n=1; fi
    while [ "$n" -le "$calls" ]; do
        rm -rf broken
        faulty "$1:$n:$2" --output-dir "$work/broken"
        code=$?
        case $2:$code in
        kill:137 | dead:137) pass ;;
        eio:0 | enospc:0 | eintr:0 | short:0) pass ;; # it did not matter, or was done again; the bytes are looked at below
        eio:5 | enospc:5 | eintr:5)
            if [ "$(grep -c '^mest-run: ' err)" = 1 ]; then pass; else fail "$1 $n $2: not one message"; fi ;;
        enomem:0 | enomem:3 | enomem:4 | enomem:5 | enomem:7) pass ;; # of whatever library asked for it; what the message names differs
        *) fail "$1 $n $2: exit code $code" ;;
        esac
        goes_on "$1 $n $2"
        n=$((n + stride)) tried=$((tried + 1))
    done
    echo "$1 $2: $tried of $calls calls"
}
case ${7:-all} in
files | all)
    # CALL WHAT STRIDE FIRST LEAST
    every write eio 7 2 8
    every write enospc 9 4 8
    every write short 9 5 8
    every fsync eio 3 1 4
    every rename eio 2 1 3
    every open enospc 5 2 4
    every close eio 5 1 4
    every link eio 2 1 1
    # memory of the whole process, of every library in it
    every malloc enomem 101 7 500
    # a disk that is full and stays so
    for n in 3 11; do
        rm -rf broken
        faulty "write:$n+:enospc" --output-dir "$work/broken"
        code=$?
        if [ $code = 5 ]; then pass; else fail "a full disk from write $n on: exit code $code"; fi
        goes_on "a full disk from write $n on"
    done
    # -o: the file of before stays whole, or the new one stands there
    for fault in write:1:eio write:2:enospc fsync:1:eio rename:1:eio open:2:enospc close:1:eio; do
        echo earlier > old.onnx
        faulty "$fault" -o "$work/old.onnx"
        code=$?
        if { [ $code = 5 ] && [ "$(cat old.onnx)" = earlier ]; } || { [ $code = 0 ] && cmp -s old.onnx straight/model.onnx; }; then pass
        else fail "-o with $fault: exit code $code"; fi
        if ls -A | grep -q -e '^\.' -e 'tmp-'; then fail "-o with $fault: left $(ls -A | tr '\n' ' ')"; rm -f .[a-z]*; else pass; fi
    done
    ;;
esac
case ${7:-all} in
kills | all)
    every file kill 9 3 20
    every file dead 9 8 20
    ;;
esac
finish
