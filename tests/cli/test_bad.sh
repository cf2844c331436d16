#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad input of every kind, with the real library: one message that names the thing, the documented exit code, no output file, no file of an
# earlier run touched, no temporary file left.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
unset FAKE_ECHO
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
quiet='-q --progress off'
shape="--input-shape 1,8,8 --scale-input 16 $quiet"
data="--data csv:$digits --limit 96 $shape"
echo earlier > old.onnx
# refuses CODE TEXT OPTIONS...: training fails so, old.onnx is what it was, nothing is left
refuses() {
    code_=$1 text_=$2
    shift 2
    says "$code_" "$text_" "$model" --train "$@" -o old.onnx
    if [ "$(cat old.onnx)" = earlier ]; then pass; else fail "old.onnx was touched: $*"; echo earlier > old.onnx; fi
    if ls -A | grep -q -e '^\.' -e 'tmp-'; then fail "left: $(ls -A)"; rm -f .[a-z]*; else pass; fi
}
# trains OPTIONS...
trains() { gives 0 "$model" --train "$@" --no-eval-before -o new.onnx; is_file new.onnx; rm -f new.onnx; }

# shellcheck disable=SC2086
{
    # ---- CSV ----
    gzip -dc "$digits" | head -n 40 > good.csv
    bad() { sed "20$2" good.csv > "$1.csv"; }
    bad word 's/^0,/0x,/;20s/^\([0-9]*\),/x\1,/'
    bad long 's/$/,1/'
    bad short 's/,[0-9]*$//'
    bad label 's/,[0-9]*$/,10/'
    bad negative 's/,[0-9]*$/,-1/'
    bad broken 's/,[0-9]*$/,1.5/'
    bad nan 's/^[0-9]*,/nan,/'
    : > empty.csv
    head -c 3000 "$digits" > cut.csv.gz
    refuses 4 'missing.csv' --data csv:missing.csv $shape
    refuses 4 'word.csv: line 20' --data csv:word.csv $shape
    refuses 4 'long.csv: line 20' --data csv:long.csv $shape
    refuses 4 'short.csv: line 20' --data csv:short.csv $shape
    refuses 4 '11 classes' --data csv:label.csv $shape
    refuses 4 'negative.csv: line 20' --data csv:negative.csv $shape
    refuses 4 'broken.csv: line 20' --data csv:broken.csv $shape
    refuses 4 'nan.csv: line 20' --data csv:nan.csv $shape
    refuses 4 'empty.csv' --data csv:empty.csv $shape
    refuses 4 'cut.csv.gz' --data csv:cut.csv.gz $shape
    refuses 2 '64 columns' --data csv:good.csv --input-shape 1,8,9 --scale-input 16 $quiet
    refuses 4 'float32' $data --loss mse

    # ---- image folders ----
    mkdir -p pictures/a pictures/b none
    printf '\377\330\377\340 not a picture' > pictures/a/1.jpg
    printf '\211PNG\r\n\032\n' > pictures/b/2.png
    refuses 4 'none' --data images:none $quiet
    refuses 4 'pictures' --data images:pictures $quiet

    # ---- models ----
    says 3 'missing.onnx' missing.onnx --train $data -o old.onnx
    for size in 0 1 100 4000; do
        head -c $size "$model" > cut.onnx
        says 3 'cut.onnx' cut.onnx --train $data -o old.onnx
    done
    says 3 'good.csv' good.csv --info
    says 3 '' none --info

    # ---- batches and samples ----
    refuses 4 'drop_last' $data --drop-last -b 97
    trains $data -b 500
    trains $data --limit 1 -b 1 --sparsity 0.9 --max-steps 2
    trains $data --limit 33 -b 32 --sparsity 0.9 --max-steps 2

    # ---- sparsity: a layer may keep very little ----
    trains $data --sparsity 0.999 --scheme block16 --dense-layers none --mutate-every 1 --epochs 2
    trains $data --sparsity 0.9999 --scheme csr --dense-layers none --method mest-ems --mutate-every 1 --epochs 2
    trains $data --rules '*=block16:0.9' --mutate-every 1 --epochs 2
    refuses 2 "'nothing*' matches no parameter" $data --rules 'nothing*=csr:0.9'
    refuses 2 'out of range' $data --sparsity 1

    # ---- numbers ----
    refuses 6 'learning rate' $data --lr 1e30 --epochs 3
    refuses 6 'learning rate' $data --lr 1e39 --max-steps 1 # the loss was finite before the only update
    refuses 2 'too large' $data --seed 99999999999999999999
    refuses 2 'not a number' $data --lr nan

    # ---- outputs ----
    mkdir folder
    says 5 'not a regular file' "$model" --train $data -o folder
    says 5 'folder' "$model" --train $data -o folder/
    says 5 'nowhere/x.onnx' "$model" --train $data -o nowhere/x.onnx
    says 5 'good.csv' "$model" --train $data --output-dir good.csv
    refuses 7 'memory limit is 1.0 MiB' $data --memory-limit 1
    (
        ulimit -f 4 # blocks of 512 bytes: too little for the model or a checkpoint
        "$run" "$model" --train $data --max-steps 1 --no-eval-before -o old.onnx > out 2> err
        echo $? > code
    )
    if [ "$(cat code)" = 5 ] && [ "$(cat old.onnx)" = earlier ]; then pass; else fail "a file that cannot grow: $(cat code)"; fi
    has err 'old.onnx'
    if ls -A | grep -q -e '^\.' -e 'tmp-'; then fail "left: $(ls -A)"; else pass; fi

    # ---- a run's folder ----
    gives 0 "$model" --train $data --max-steps 2 --no-eval-before --output-dir kept
    cp kept/checkpoint.mest checkpoint
    cp kept/log.jsonl log
    says 4 'missing.csv' "$model" --train --data csv:missing.csv $quiet --output-dir kept --overwrite
    if cmp -s checkpoint kept/checkpoint.mest && cmp -s log kept/log.jsonl; then pass; else fail 'an earlier run was lost before the new one could begin'; fi
    head -c 2000 checkpoint > kept/checkpoint.mest
    says 5 'checkpoint.mest' "$model" --train $data --max-steps 2 --output-dir kept --resume
    : > kept/.checkpoint.mest.tmp-1-1
    gives 0 "$model" --train $data --max-steps 2 --no-eval-before --output-dir kept --overwrite
    is_gone kept/.checkpoint.mest.tmp-1-1
    is_file kept/model.onnx
}
finish
