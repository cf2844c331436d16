#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Usage errors, help, exit codes of each kind of failure.
run=$1 json_lines=$2
. "$(dirname "$0")/lib.sh"

# ---- help and version ----
gives 0 --help
has out 'Examples:'
has out 'mest-run resnet20.onnx --train'
has out '--batch-size N'
has out 'Exit codes:'
lacks out '--warmup-lr'
if [ "$(grep -c '^  mest-run ' out)" = 3 ]; then pass; else fail 'three example commands'; fi
gives 0 --help-all
has out '--warmup-lr LR'
has out '[1e-5]'
has out 'Schedulers, built in'
if awk 'length > 140 { exit 1 }' out; then pass; else fail 'help-all is wider than 140 columns'; fi
COLUMNS=100 gives 0 --help data
has out '--img-size'
lacks out '--momentum'
gives 0 -h
gives 0 m.onnx --train --help
says 2 "no group 'nothing'" --help nothing
gives 0 --version
has out 'mest-run 0.1.0'
gives 2
has err 'usage: mest-run'

# ---- check ----
gives 0 m.onnx --check -b 8
has out '/fc1/Gemm: fastest'
has out 'my.Odd'
has out '-> leave it out'
has out 'warning     beware'
has out 'it trains: 2 nodes'
gives 0 m.onnx --check --json
json out
has out '"name":"/fc1/Gemm"'
has out '"op":"my.Odd"'
has out '"level":"warning"'
has out '"trains":true'
FAKE_UNTRAINABLE=1
export FAKE_UNTRAINABLE
gives 3 m.onnx --check
has out 'it does NOT train'
gives 3 m.onnx --check --json
has out '"trains":false'
unset FAKE_UNTRAINABLE

# ---- options ----
says 2 "no model given" --train
says 2 "what shall be done with 'm.onnx'" m.onnx
says 2 "there is a model already" m.onnx n.onnx --info
says 2 "unknown option '--sparsty'; did you mean '--sparsity'?" m.onnx --train --sparsty 0.9
says 2 "did you mean '--weight-decay'?" m.onnx --train --weight-deacy 1
says 2 "did you mean '--threads'?" m.onnx --thread 1
says 2 "did you mean '--lr'?" m.onnx --train --learning-rate 0.1
says 2 "did you mean '--opt'?" m.onnx --train --optimizer sgd
says 2 "'memroy' is not the word that may follow; did you mean 'memory'?" m.onnx --explain memroy
says 2 "unknown option '--qqqqqqqqqqq'" m.onnx --qqqqqqqqqqq
lacks err 'did you mean'
says 2 "unknown option '-z'" m.onnx -z
says 2 "--epochs needs an argument: N" m.onnx --train --epochs
says 2 "--lr needs an argument: LR" m.onnx --train --lr --epochs 3
says 2 "--train takes no argument" m.onnx --train=yes
says 2 "only one of" m.onnx --train --eval
says 2 "--sched: 'cosin' is none of constant|step|cosine; did you mean 'cosine'?" m.onnx --train --sched cosin
says 2 "--epochs: 'ten' is not a whole number" m.onnx --train --epochs ten
says 2 "--epochs: '1.5' is not a whole number" m.onnx --train --epochs 1.5
says 2 "--lr: 'nan' is not a number" m.onnx --train --lr nan
says 2 "--lr: '0x1' is not a number" m.onnx --train --lr 0x1
says 2 "--sparsity: 1.5 is out of range, 0 to 0.9999" m.onnx --train --sparsity 1.5
says 2 "--batch-size: 0 is out of range" m.onnx --train -b 0
says 2 "--data: the KIND:PATH is empty" m.onnx --eval --data ''
says 2 "--data is missing" m.onnx --train
says 2 "exclude each other" m.onnx --train --data idx:x --val idx:y --val-split 0.1
says 2 "exclude each other" m.onnx --train --data idx:x --measure --mean 0.5
says 2 "exclude each other" m.onnx --train --data idx:x --freeze 'fc*' --train-only 'fc*'
says 2 "'fx*' matches no parameter" m.onnx --train --data idx:x --freeze 'fx*'
says 2 "'conv*' matches no parameter" m.onnx --train --data idx:x --no-decay 'fc*,conv*'
says 2 "has no '/'" m.onnx --train --data idx:x --normalise 0.5
says 2 "--augment: 'flop'" m.onnx --train --data idx:x --augment pad4,flop
says 2 "--forget-remove needs --forget-epoch" m.onnx --train --data idx:x --forget-remove 0.2
says 2 "one of the two" m.onnx --train --data idx:x --forget-epoch 3
says 2 "neither a fraction" m.onnx --train --data idx:x --forget-epoch 3 --forget-remove 1.5
says 2 "--opt-betas takes two numbers" m.onnx --train --data idx:x --opt-betas 0.9
says 2 "from where" m.onnx --train --data idx:x --resume -q
says 2 "unknown kind" m.onnx --train --data cifar11:x

# ---- one exit code a kind of failure ----
says 3 'No such file' missing.onnx --info
printf rubbish > bad.onnx
says 3 'damaged at byte 0' bad.onnx --info
says 4 'No such file' m.onnx --eval --data idx:missing
says 4 'label 77' m.onnx --eval --data idx:damaged
says 4 "samples are [3], input 'x' of the model takes [4]" m.onnx --eval --data idx:narrow
says 4 '11 classes' m.onnx --train --data idx:eleven -q
says 4 'no targets' m.onnx --eval --data idx:bare
says 4 'needs float32 targets' m.onnx --eval --data idx:x --loss mse
says 5 'cannot be written' m.onnx --train --data idx:x -o nowhere/out.onnx
says 5 'is a folder' m.onnx --train --data idx:x -o "$work/"
says 7 'no memory' m.onnx --info --memory-limit 2
says 7 '--mem-limit is 2.0 MiB; the process had 1.0 MiB' m.onnx --info --mem-limit 2MiB
gives 0 m.onnx --info --memory-limit 4
gives 0 m.onnx --info --mem-limit 4MiB
gives 0 m.onnx --info --mem-limit '4.5 MB'
says 2 'has no unit: 64MiB, or 64MB' m.onnx --info --mem-limit 64
says 2 'is no size' m.onnx --info --mem-limit much
says 2 'unit that is none of' m.onnx --info --mem-limit 64MX
says 8 'cannot open shared object' m.onnx --train --data idx:x --scheduler ./none.so:a=1 -q
if [ -w /dev/full ]; then
    "$run" --help-all > /dev/full 2> err
    if [ $? = 5 ]; then pass; else fail 'full standard output'; fi
else
    skip 'no /dev/full'
fi
# FUNCTION=STATUS of the library, the exit code wanted, the command
while read -r wish want rest; do
    FAKE_FAIL=$wish
    export FAKE_FAIL
    # shellcheck disable=SC2086
    gives "$want" m.onnx $rest
    has err 'was asked to fail'
done <<'TABLE'
mest_model_load=5 3 --info
mest_model_load=2 7 --info
mest_model_load=11 7 --info
mest_model_load=13 1 --info
mest_model_summarize=13 1 --info
mest_model_sparsify=5 3 --info --sparsity 0.5
mest_model_sparsify=1 2 --info --sparsity 0.5
mest_session_create=5 3 --eval --data idx:x
mest_session_create=6 3 --eval --data idx:x
mest_session_create=1 2 --eval --data idx:x
mest_session_explain=2 7 --explain
mest_session_passes=2 7 --explain
mest_session_explain=2 7 --train --data idx:x
mest_session_plan_memory=11 7 --train --data idx:x
mest_session_plan_memory=11 7 --explain memory
mest_session_memory_values=2 7 --explain memory
mest_session_add_scheduler=1 2 --train --data idx:x --sparsity 0.5
mest_session_add_scheduler=10 8 --train --data idx:x --sparsity 0.5
mest_session_train=8 6 --train --data idx:x
mest_session_train=7 4 --train --data idx:x
mest_session_train=3 5 --train --data idx:x
mest_session_train=2 7 --train --data idx:x
mest_session_train=10 8 --train --data idx:x
mest_session_evaluate=6 4 --eval --data idx:x
mest_session_infer_inputs=8 6 --infer --data idx:x
fetch=7 4 --infer --data idx:x
mest_model_export=3 5 --train --data idx:x -o out.onnx
TABLE
unset FAKE_FAIL
is_gone out.onnx
is_gone output.npy
if ls ./*.tmp* ./.mest* > /dev/null 2>&1; then fail 'temporary files are left'; else pass; fi
# a failure as JSON, too
FAKE_FAIL=mest_session_train=8
export FAKE_FAIL
gives 6 m.onnx --train --data idx:x --json
json out
if [ "$("$json_lines" error exit < out)" = 6 ]; then pass; else fail 'error event'; fi
finish
