#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# End to end, with the real library: the whole process stays below --mem-limit by the system's count, or is refused with a size that works;
# predictions are within 5 % + 2 MiB of what is measured; a limit changes no byte of the result.
run=$1 json_lines=$2 examples=$5 models=$6
. "$(dirname "$0")/lib.sh"
digits=$examples/digits.csv.gz
if [ ! -f "$digits" ] || [ ! -r /proc/self/status ]; then
    skip "no bundled digits in $examples, or no /proc"
    finish
    exit 77
fi
unset FAKE_ECHO
field() { "$json_lines" "$@" < out; }
holds() { if awk "BEGIN { exit !($1) }" 2> /dev/null; then pass; else fail "$2: $1"; fi; }
# near PREDICTED MEASURED: within 5 % + 2 MiB
near() { holds "($1 - $2) * ($1 - $2) <= (0.05 * $2 + 2097152) ^ 2" "$what, predicted and measured"; }
close_enough() {
    near "$(field summary predicted_process_bytes)" "$(field summary resident_peak_bytes)"
    holds "$(field summary peak_bytes) <= $(field summary predicted_heap_bytes)" "$what, allocator"
}

# sweep NAME ARGUMENTS: without a limit, then with less and less
sweep() {
    what=$1
    shift
    gives 0 "$@" --json -q -o free.onnx
    close_enough
    most=$(field summary predicted_process_bytes)
    for part in 0.97 0.9 0.8 0.7 0.6 0.5 0.3; do
        limit=$(awk "BEGIN { printf \"%d\", $most * $part }")
        what="$what at $part"
        "$run" "$@" --json -q -o limited.onnx --mem-limit "${limit}B" > out 2> err < /dev/null
        code=$?
        if [ $code = 7 ]; then # refused: what is named works
            enough=$(sed -n 's/.*all else; \([0-9.]*\) MiB would do.*/\1/p' err)
            gives 0 "$@" --json -q -o limited.onnx --mem-limit "${enough}MiB"
            limit=$(awk "BEGIN { printf \"%d\", $enough * 1048576 }")
        elif [ $code != 0 ]; then
            fail "exit code $code"
        fi
        holds "$(field summary resident_peak_bytes) <= $limit" "$what: the process, and its limit"
        close_enough
        if cmp -s free.onnx limited.onnx; then pass; else fail "$what: the limit changed the result"; fi
        if [ $code = 7 ]; then break; fi
    done
}

data="--data csv:$digits --limit 640 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 1 -t 2 --epochs 2"
# shellcheck disable=SC2086
{
    sweep digits "$examples/digits_cnn.onnx" --train $data -b 256 --sparsity 0.9 --scheme block --mutate-every 1 --lr 0.05 --micro-batch off
    sweep 'digits, dense' "$examples/digits_cnn.onnx" --train $data -b 256 --lr 0.05 --opt adamw --micro-batch off
    # steps in parts: asked for, or because nothing else obeys
    what='parts of 32'
    gives 0 "$examples/digits_cnn.onnx" --train $data -b 256 --lr 0.05 --micro-batch 32 --json -q -o parts.onnx
    close_enough
    small=$(field summary predicted_process_bytes)
    what='parts by a limit'
    limit=$(awk "BEGIN { printf \"%d\", $small + 1200000 }")
    gives 0 "$examples/digits_cnn.onnx" --train $data -b 256 --lr 0.05 --mem-limit "${limit}B" --json -q -o parts2.onnx
    close_enough
    holds "$(field summary resident_peak_bytes) <= $limit" "$what: the process, and its limit"
    has out 'steps in parts of'
    gives 2 "$examples/digits_cnn.onnx" --train $data -b 256 --micro-batch some -q
    has err 'micro-batch some is neither'
    gives 2 "$examples/digits_cnn.onnx" --train $data -b 256 --micro-batch 7 -q
    has err 'does not divide the batch'
    # what cannot be obeyed is refused before anything happens
    gives 7 "$examples/digits_cnn.onnx" --train $data -b 256 --mem-limit 6MiB --output-dir never -q
    is_gone never/model.onnx
    has err 'would do'
    gives 0 "$examples/digits_cnn.onnx" --explain memory -b 64 --json
    holds "$(field memory live_bytes) <= $(field memory arena_bytes)" 'alive, and the arena'
    holds "$(field memory_value at_peak | grep -c true) > 3" 'values at the peak'
    gives 0 "$models/residual.onnx" --explain memory -b 64 --recompute least
    has out 'recomputed'
    has out 'nodes computed again'
}
finish
