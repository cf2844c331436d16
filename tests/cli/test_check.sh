#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --check and --gradcheck with the real library: exit codes, what is named, JSON, models that nothing else loads.
run=$1 json_lines=$2 digits=$5
. "$(dirname "$0")/lib.sh"
unset FAKE_ECHO
data=$MEST_TEST_DATA/check

# ---- a model that trains ----
gives 0 "$digits/digits_cnn.onnx" --check -b 16
has out 'verdict     it trains'
has out 'multiply-accumulates a step of 16 samples'
lacks out ' NO '
gives 0 "$digits/digits_cnn.onnx" --check -b 16 --json
json out
if grep '"event":"check_node"' out | grep -vq '"forward":true'; then fail 'a node does not run'; else pass; fi
has out '"trains":true'
gives 0 "$digits/digits_cnn.onnx" --check -b 16 --sparsity 0.9 --scheme csr --freeze '*.bias'
has out 'verdict     it trains'
says 2 'matches no parameter' "$digits/digits_cnn.onnx" --check --freeze 'nothing*'
gives 3 "$digits/digits_cnn.onnx" --check --freeze '*'
has out 'nothing in the model trains'

# ---- another number of classes ----
gives 0 "$digits/digits_cnn.onnx" --check --new-head 3 --freeze '*'
has err '3 classes instead of 10'
has out '2 parameters train'
gives 4 "$digits/digits_cnn.onnx" --check --new-head 3 --data "csv:$digits/digits.csv.gz" --scale-input 16
has err '--new-head 10 gives it a layer for them'
gives 0 "$digits/digits_cnn.onnx" --train --data "csv:$digits/digits.csv.gz" --scale-input 16 --new-head 12 --max-steps 2 -o head.onnx
gives 0 head.onnx --info
has out '12'

# ---- models that do not: all reasons at once, and what to change ----
gives 3 "$data/unknown.onnx" --check
for text in 'Fancy' 'Multinomial' 'com.microsoft.FusedGelu' 'cut the graph before it' "ONNX Runtime's optimizer" '3 cannot run'; do has out "$text"; done
gives 3 "$data/unknown.onnx" --check --json
json out
has out '"trains":false'
has out '"planned":false'
gives 3 "$data/control.onnx" --check
has out "condition 'c' depends on the data"
gives 3 "$data/quantised.onnx" --check
has out 'integers do not train'
gives 3 "$data/scikit.onnx" --check
has out 'ai.onnx.ml.LinearClassifier'
gives 3 "$data/free.onnx" --check
has out '--input-shape'
gives 0 "$data/free.onnx" --check --input-shape 7,4
gives 0 "$data/old_softmax.onnx" --check
gives 3 "$data/baked.onnx" --check -b 4
has out 'dynamic batch axis'
gives 0 "$data/baked.onnx" --check -b 1
gives 3 "$data/no_such.onnx" --check 2> /dev/null || true
printf 'no model' > text.onnx
says 3 'byte' text.onnx --check

# ---- what the exporter folded away ----
gives 0 "$MEST_TEST_DATA/bn/folded_legacy.onnx" --check
has out 'was folded into 3 Conv nodes'
has out '--bn unfold'
gives 0 "$MEST_TEST_DATA/bn/folded_legacy.onnx" --check --bn unfold
lacks out 'was folded into'
gives 0 "$MEST_TEST_DATA/bn/folded_dynamo.onnx" --info
has out "was folded into 3 Conv nodes at export (the exporter's note"
says 3 'no Conv of the model' "$digits/digits_cnn.onnx" --check --bn unfold

# ---- gradients ----
if "$run" "$data/mlp.onnx" --gradcheck --loss mse > out 2> err; then
    pass
    has out 'verdict     gradients are right'
    gives 0 "$data/mlp.onnx" --gradcheck --loss mse --json
    json out
    has out '"kind":"node"'
    has out '"kind":"kernels"'
    has out '"off":0'
    gives 0 "$digits/digits_cnn.onnx" --gradcheck
    has out 'verdict     gradients are right'
    gives 0 "$digits/digits_cnn.onnx" --gradcheck --sparsity 0.8 --scheme csr -v
    has out 'good      kernels'
    gives 0 "$digits/digits_cnn.onnx" --gradcheck --data "csv:$digits/digits.csv.gz" --scale-input 16 -b 6
    gives 0 "$digits/digits_cnn.onnx" --gradcheck --gradcheck-seconds 0.1 --train-only '*.bias'
    says 3 'Fancy' "$data/unknown.onnx" --gradcheck
    says 3 'free' "$data/free.onnx" --gradcheck
    ls "${TMPDIR:-/tmp}"/mest-gradcheck-* > out 2> /dev/null && fail 'a temporary model was left behind'
elif grep -q 'this build is without it' err; then
    skip '--gradcheck: not in this build'
else
    fail "mest-run $data/mlp.onnx --gradcheck"
fi
finish
