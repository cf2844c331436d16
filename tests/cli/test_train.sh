#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the modes write: tables, JSON lines, plain progress, files; and what they refuse to overwrite.
run=$1 json_lines=$2
. "$(dirname "$0")/lib.sh"
escape=$(printf '\033')

# ---- not a terminal: plain lines, the table on stdout ----
gives 0 m.onnx --train --data idx:x --val idx:y --epochs 2 --sparsity 0.5 -o out.onnx
has err 'epoch 1/2  step 4/4  loss'
has err 'val acc 87.50%'
has out 'the model as given'
has out 'made sparse, before training'
has out 'after training'
has out 'VmHWM'
has out 'fc1.weight'
lacks err "$escape"
lacks out "$escape"
if grep -q "$(printf '\r')" err; then fail 'a carriage return without terminal'; else pass; fi
has out.onnx 'mest.method=mest-em'
has out.onnx 'sparse=0'
gives 0 m.onnx --train --data idx:x --export sparse -o out.onnx --measure
has out.onnx 'sparse=1'
has out.onnx 'mest.normalisation=--scale-input 255 --mean 0.125 --std 0.5'
gives 0 m.onnx --train --data idx:x --val idx:y --no-eval-before --epochs 1
lacks out 'before training'
gives 0 m.onnx --train --data idx:x --quiet -o out.onnx
if [ ! -s err ]; then pass; else fail '--quiet talks'; fi
gives 0 m.onnx --train --data idx:x --progress off -o out.onnx
lacks err 'epoch 1'
gives 0 m.onnx --train --data idx:x --log-interval 1 -o out.onnx
if [ "$(grep -c '^epoch' err)" = 5 ]; then pass; else fail 'a line a step and one an epoch'; fi
gives 0 m.onnx --train --data idx:x -v -o out.onnx
has err 'a note of the library'
has err '2 units removed'

# ---- a bar when asked for, and never on a dumb terminal ----
TERM=xterm COLUMNS=80 gives 0 m.onnx --train --data idx:x --progress on -o out.onnx
has err "$(printf '\r')"
has err '[==='
TERM=xterm COLUMNS=80 gives 0 m.onnx --train --data idx:x --val idx:y --progress on -o out.onnx
has err 'validating  [==='
TERM=dumb gives 0 m.onnx --train --data idx:x --progress on -o out.onnx
lacks err "$(printf '\r')"
TERM=xterm COLUMNS=40 gives 0 m.onnx --train --data idx:x --progress on -o out.onnx
if tr '\r' '\n' < err | sed "s/$escape\[K//g" | grep -v '^mest-run: \|lr 0.01' | awk 'length > 40 { exit 1 }'; then pass; else fail 'bar wider than COLUMNS'; fi
if command -v script > /dev/null; then
    for case in colour:0 plain:1; do
        if [ "${case#*:}" = 1 ]; then NO_COLOR=1; export NO_COLOR; fi
        TERM=xterm script -qec "'$run' m.onnx --train --data idx:x --epochs 1 -o out.onnx" /dev/null > out 2> err < /dev/null
        if [ "${case#*:}" = 1 ]; then lacks out "${escape}[32m"; else has out "${escape}[32m"; fi
        has out "${escape}[K"
    done
    unset NO_COLOR
else
    skip 'no program script(1): the bar on a terminal'
fi

# ---- JSON: only objects on stdout ----
gives 0 m.onnx --train --data idx:x --val idx:y --epochs 2 --sparsity 0.5 --log-interval 1 --json -o out.onnx --output-dir j
json out
json j/log.jsonl
if [ "$("$json_lines" step batch loss < out | wc -l)" = 8 ]; then pass; else fail 'eight steps'; fi
if [ "$("$json_lines" epoch validation accuracy < out | tail -n 1)" = 0.875 ]; then pass; else fail 'validation accuracy'; fi
if [ "$("$json_lines" summary after accuracy < out)" = 0.875 ]; then pass; else fail 'accuracy after'; fi
if [ "$("$json_lines" summary original accuracy < out)" = 0.75 ]; then pass; else fail 'accuracy of the model as given'; fi
if [ "$("$json_lines" summary planned_bytes < out)" = 37000 ]; then pass; else fail 'planned bytes'; fi
if [ "$("$json_lines" summary predicted_process_bytes < out)" = 3059000 ]; then pass; else fail 'predicted bytes'; fi
has err '2 nodes computed again'
has err 'Result'
for mode in --info --explain '--eval --data idx:x' '--eval --data idx:float --loss mse' '--infer --data idx:named'; do
    # shellcheck disable=SC2086
    gives 0 m.onnx --json $mode
    json out
done
if [ "$("$json_lines" prediction top < out | wc -l)" = 100 ]; then pass; else fail 'predictions'; fi
gives 0 m.onnx --eval --data idx:float --loss mse --json
if [ "$("$json_lines" summary metrics accuracy < out)" = null ]; then pass; else fail 'NaN is null'; fi

# ---- info, explain, eval, infer for people ----
gives 0 m.onnx --info --sparsity 0.5 --freeze 'fc1.*'
has out 'frozen'
has out '5 in the file, 4 after folding, 1 after fusion'
has out 'operand of Mul'
has out 'block4'
gives 0 m.onnx --explain -b 8
has out 'gemm_csr_f32_avx2'
has out 'xnnpack: weight is sparse'
has out 'batch 8'
has out '   2 gelu               a chain as one node'
has out ' off silu'
has out '5 nodes in the file, 4 once shapes are known, 1 after the passes'
gives 0 m.onnx --explain memory -b 8
has out 'h: /fc1/Gemm .. /fc1/grad'
has out 'activations'
has out 'the process       3.06 MB predicted'
gives 0 m.onnx --json --explain memory --mem-limit 64MiB
if [ "$("$json_lines" memory limit_bytes < out)" = 67108864 ]; then pass; else fail 'limit in the memory event'; fi
if [ "$("$json_lines" memory_value born < out)" = 1 ]; then pass; else fail 'a memory value'; fi
gives 0 m.onnx --explain --program infer
lacks out 'backward'
gives 0 m.onnx --eval --data idx:x
has out 'accuracy  75.00 %'
gives 0 m.onnx --infer --data idx:bare --limit 3
is_file output.npy
if [ "$(wc -c < output.npy)" = $((128 + 36)) ]; then pass; else fail 'size of output.npy'; fi
has output.npy "'shape': (3, 3), }"
if [ ! -s out ]; then pass; else fail 'predictions without class names'; fi
gives 0 m.onnx --infer --data idx:x --limit 2 -o o.csv --topk 1
if [ "$(cat o.csv)" = "$(printf '0,1,2\n1,2,0')" ]; then pass; else fail 'CSV'; fi
has out '0  2 66.5%'
gives 0 m.onnx --infer --data idx:x --limit 2 -b 1 -o -
if [ "$(cat out)" = "$(printf '0,1,2\n1,2,0')" ]; then pass; else fail 'CSV on stdout'; fi
gives 0 m.onnx --infer --data idx:named --limit 1
has out '0  daisies 66.5%, roses 24.5%, tulips 9.0%'

# ---- what the model was trained with ----
FAKE_NORMALISATION='--scale-input 255 --mean 0.5,x --std 1' says 3 'is not understood' m.onnx --eval --data idx:x -q
FAKE_NORMALISATION='--std 0' says 3 'is not understood' m.onnx --eval --data idx:x -q
FAKE_NORMALISATION='--std 0' gives 0 m.onnx --eval --data idx:x --mean 0.5
FAKE_NORMALISATION='--scale-input 2 --mean 0.5 --std 1' gives 0 m.onnx --train --data idx:x --val idx:y
if [ "$(grep -c 'normalisation as in the model' err)" = 1 ]; then pass; else fail 'says once where the normalisation is from'; fi

# ---- what is not overwritten ----
gives 0 m.onnx --train --data idx:x --output-dir r
says 5 'holds the checkpoint of an earlier run' m.onnx --train --data idx:x --output-dir r
gives 0 m.onnx --train --data idx:x --output-dir r --overwrite
gives 0 m.onnx --train --data idx:x --output-dir r --resume
has echo 'resumed 4'
has err 'the run is complete (4 steps)'
cp -r r before
gives 0 m.onnx --train --data idx:x --output-dir r --resume -o again.onnx --json
json out
if [ "$("$json_lines" complete steps < out)" = 4 ]; then pass; else fail 'event of a complete run'; fi
is_file again.onnx
for file in summary.json log.jsonl model.onnx checkpoint.mest; do
    if cmp -s r/$file before/$file; then pass; else fail "$file of a complete run was changed"; fi
done
rm r/summary.json # as if the process had died just before
gives 0 m.onnx --train --data idx:x --output-dir r --resume
is_file r/summary.json
says 5 'is the input model' r/model.onnx --train --data idx:x --output-dir r --resume -q
gives 0 m.onnx --train --data idx:x --output-dir deep/er/run
is_file deep/er/run/model.onnx
gives 0 m.onnx --train --data idx:x -o m.onnx # named: allowed
has m.onnx 'FAKE sparse=0'
printf x > file
says 5 'cannot be created' m.onnx --train --data idx:x --output-dir file/run
says 5 'No such file' m.onnx --train --data idx:x --resume nothing -o out.onnx
printf x > broken
says 5 'not a checkpoint' m.onnx --train --data idx:x --resume broken -o out.onnx -q
gives 0 m.onnx --train --data idx:x --resume --output-dir fresh
has err 'no checkpoint at'
mkdir busy
if command -v flock > /dev/null; then
    printf '4711\n' > busy/lock
    flock busy/lock -c "'$run' m.onnx --train --data idx:x --output-dir busy" > out 2> err
    if [ $? = 5 ]; then pass; else fail 'lock of the run folder'; fi
    has err 'in use by another run (process 4711)'
else
    skip 'no program flock(1): lock of the run folder'
fi
finish
