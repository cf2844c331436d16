#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One, two and three threads give the same bytes: dense with and without XNNPACK, csr, block; for one network (digits or a fixture's name, the last argument).
# Three threads cut the work differently from two, and choices by cost would show.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
unset FAKE_ECHO
same() { if cmp -s "$1" "$2"; then pass; else fail "$3: $1 and $2 differ"; fi; }

# identical NAME MODEL OPTIONS...: trains with 1, 2 and 3 threads; the exports are compared
identical() {
    name=$1 net=$2
    shift 2
    for n in 1 2 3; do
        gives 0 "$net" --train "$@" -t $n --no-eval-before -q --progress off -o t$n.onnx
    done
    same t1.onnx t2.onnx "$name"
    same t1.onnx t3.onnx "$name"
}

sparse='--sparsity 0.8 --dense-layers none'
# variants NAME MODEL OPTIONS...
variants() {
    what=$1 net_=$2
    shift 2
    # shellcheck disable=SC2086
    {
        identical "$what, dense" "$net_" "$@" --sparsity 0
        identical "$what, dense, own kernels" "$net_" "$@" --sparsity 0 --no-xnnpack
        identical "$what, csr" "$net_" "$@" $sparse --scheme csr --mutate-every 1
        identical "$what, block4" "$net_" "$@" $sparse --scheme block4 --mutate-every 1
    }
}

network=$6
if [ "$network" = digits ]; then
    if [ ! -f "$examples/digits_cnn.onnx" ]; then
        skip "no bundled digits in $examples"
        finish
        exit 77
    fi
    variants digits "$examples/digits_cnn.onnx" --data "csv:$examples/digits.csv.gz" --limit 200 --input-shape 1,8,8 --scale-input 16 -b 48 \
        --epochs 2 --lr 0.05
else
    folder=$MEST_SHARED/fixtures/$network loss=ce
    if [ -z "$MEST_SHARED" ] || [ ! -f "$folder/model.onnx" ]; then
        skip 'the fixtures are not here (MEST_SHARED)'
        finish
        exit 77
    fi
    if grep -q '^loss mse' "$folder/meta.txt"; then loss=mse; fi
    variants "$network" "$folder/model.onnx" --data "npy:$folder/input.npy,$folder/label.npy" -b 4 --epochs 3 --lr 0.05 --loss $loss
fi
finish
