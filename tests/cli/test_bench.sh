#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --bench and --profile, against the pretended library; with a sixth argument, the folder of the bundled network, against the real one.
run=$1 json_lines=$2 examples=${6:-}
. "$(dirname "$0")/lib.sh"
# number TEXT: of the one event in ./out
number() { "$json_lines" bench "$@" < out; }
# trace FILE EVENTS: a JSON document with as many complete events
trace() {
    if { printf '{"event":"trace","document":'; tr -d '\n' < "$1"; echo '}'; } | "$json_lines" > /dev/null; then pass; else fail "$1 is not JSON"; fi
    if [ "$(grep -c '"ph":"X"' "$1")" = "$2" ]; then pass; else fail "$1: $(grep -c '"ph":"X"' "$1") events instead of $2"; fi
}

if [ -n "$examples" ]; then
    unset FAKE_ECHO
    model=$examples/digits_cnn.onnx
    for which in infer train; do
        gives 0 "$model" --bench $which -b 16 --sparsity 0.9 --bench-runs 5 --bench-warmup 1 -t 1 --json --profile trace.json
        json out
        if [ "$(number runs)" = 5 ] && [ "$(number batch)" = 16 ] && [ "$(number program)" = "\"$which\"" ]; then pass; else fail 'runs, batch, program'; fi
        for key in p50_seconds p90_seconds p99_seconds images_per_second total_bytes peak_bytes plan_seconds load_seconds macs; do
            if awk "BEGIN { exit !($(number $key) > 0) }" 2> /dev/null; then pass; else fail "$which: $key is '$(number $key)'"; fi
        done
        if awk "BEGIN { exit !($(number least_seconds) <= $(number p50_seconds) && $(number p50_seconds) <= $(number p99_seconds) && $(number p99_seconds) <= $(number most_seconds)) }"
        then pass; else fail 'order of the percentiles'; fi
        has out '"op":"Gemm"'
        nodes=$(grep -o '"nodes":[0-9]*' out | tail -n +2 | awk -F: '{ n += $2 } END { print n }') # the first one is the plan's
        has trace.json '"nonzeros":'
        has trace.json "\"program\":\"$which\""
        trace trace.json "$(grep -c '"ph":"X"' trace.json)"
        if [ $(($(grep -c '"ph":"X"' trace.json) % 5)) = 0 ]; then pass; else fail 'events are not those of five runs'; fi
    done
    has trace.json '"cat":"update"'
    gives 0 "$model" --bench train -b 16 --bench-runs 3 -t 1 --data "csv:$examples/digits.csv.gz" --input-shape 1,8,8
    has out 'samples of --data: 3 runs'
    has out 'kernel'
    # the same steps with and without a profile: the model that comes out is the same
    recipe="--train --data csv:$examples/digits.csv.gz --limit 64 --input-shape 1,8,8 --scale-input 16 --sparsity 0.9 -b 16 --epochs 1 -t 1"
    # shellcheck disable=SC2086
    gives 0 "$model" $recipe -o plain.onnx
    # shellcheck disable=SC2086
    gives 0 "$model" $recipe -o profiled.onnx --profile steps.json
    if cmp -s plain.onnx profiled.onnx; then pass; else fail '--profile changes the result'; fi
    has err "'steps.json': "
    trace steps.json "$(sed -n "s/.*'steps.json': \([0-9]*\) node times.*/\1/p" err)"
    finish
    exit
fi

gives 0 m.onnx --bench infer -b 4 --bench-runs 10 --bench-warmup 2
has out 'inference, batch 4, made-up samples: 10 runs after 3 of warm-up'
has out 'p99'
has out 'images/s'
has out 'gemm_csr'
has out 'not counted'
lacks out 'cycles/nz'
has echo 'machine bn=auto,pytorch dropout=-1 threads=0'
FAKE_CYCLES=1
export FAKE_CYCLES
gives 0 m.onnx --bench train -b 4 --bench-runs 20 --profile t.json
has out 'cycles/nz'
has out ' 5.00  forward'
trace t.json 16
has t.json '"cycles":5000'
has t.json '/fc1/\"Gemm\"'
if [ "$(grep -c '^step_inputs 4 first=1' echo)" = 40 ]; then pass; else fail 'steps of the first run, warm-up, timing and table'; fi # 1 + 3 + 20 + 16
gives 0 m.onnx --bench train --data idx:x -b 4 --bench-runs 3 --json
json out
if [ "$(number data)" = '"idx:x"' ] && [ "$(number cycles_counted)" = true ]; then pass; else fail 'data, cycles'; fi
unset FAKE_CYCLES

says 2 "--bench needs an argument: infer|train" m.onnx --bench
says 2 "--bench: 'trian' is none of infer|train; did you mean 'train'?" m.onnx --bench trian
says 2 "only one of the modes" m.onnx --bench train --eval
says 2 "--profile goes with" m.onnx --info --profile p.json
says 5 "--profile: 'none/p.json'" m.onnx --bench infer --profile none/p.json
says 5 "--profile: 'none/p.json'" m.onnx --eval --data idx:x --profile none/p.json
FAKE_FAIL=mest_session_step_inputs=8
export FAKE_FAIL
gives 6 m.onnx --bench train --bench-runs 2 --profile never.json
is_gone never.json
FAKE_FAIL=mest_session_train=8
gives 6 m.onnx --train --data idx:x --profile never.json
is_gone never.json
unset FAKE_FAIL
if [ -z "$(ls | grep tmp)" ]; then pass; else fail 'temporary files stay behind'; fi
gives 0 m.onnx --train --data idx:x --profile train.json
trace train.json 0
finish
