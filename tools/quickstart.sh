#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a fresh Debian 12 to a sparsely trained model: installs the packages, builds, trains the bundled network on the bundled digits at
# 90 % sparsity. Arguments are added to the training command: tools/quickstart.sh --epochs 20 --sparsity 0.95
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh
# shellcheck disable=SC2086
need $build_packages
[ -f build/build.ninja ] || meson setup build -Dtests=false -Dbench=false
ninja -C build
set -- examples/digits/digits_cnn.onnx --train --data csv:examples/digits/digits.csv.gz --input-shape 1,8,8 --scale-input 16 \
    --val-split 0.2 --epochs 20 -b 32 --lr 0.05 --momentum 0.9 --weight-decay 1e-4 --sched cosine \
    --sparsity 0.9 --scheme block --method mest-em --mutate-every 2 --seed 1 -o digits_sparse.onnx "$@"
echo
echo "build/tools/mest-run $*"
exec build/tools/mest-run "$@"
