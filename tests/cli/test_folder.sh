#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What stands in --output-dir is lost only when a new run has trained: errors before that, another run's folder, links and damaged results.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
gzip -dc "$digits" > digits.csv
recipe='--data csv:digits.csv --limit 320 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --epochs 2 --lr 0.05 --sparsity 0.5 --log jsonl,csv -t 1 -q'
# kept A B: the same files in both, but for the number of the process in the lock
kept() { if diff -r -x lock "$1" "$2" > difference; then pass; else fail "$3: $(head -n 3 difference | cut -c1-200 | tr '\n' '|')"; fi; }
nothing() { if [ -z "$(ls -A "$1" 2> /dev/null)" ] && [ ! -e "$1" ]; then pass; else fail "left: $(ls -A "$1" | tr '\n' ' ')"; fi; }
total() { { tr -d '\n\t' < "$1/summary.json"; echo; } | "$json_lines" summary "$2"; }
# shellcheck disable=SC2086
{
    gives 0 "$model" --train $recipe --output-dir run
    cp -a run first

    # ---- nothing is trained: nothing is lost, and nothing is left ----
    for folder in run deep/er/fresh; do
        says 5 '/nonexistent' "$model" --train $recipe --output-dir $folder --overwrite --scheduler forgetting:import=/nonexistent,fraction=.3
        says 6 'NaN' "$model" --train $recipe --output-dir $folder --overwrite --lr 1e30
        says 4 'missing.csv' "$model" --train $recipe --data csv:missing.csv --output-dir $folder --overwrite
    done
    kept run first 'a run that failed before it trained'
    nothing deep
    mkdir mine
    says 6 'NaN' "$model" --train $recipe --output-dir mine --lr 1e30
    if [ -d mine ] && [ -z "$(ls -A mine)" ]; then pass; else fail "left in a folder that was there: $(ls -A mine)"; fi
    says 6 'NaN' "$model" --train $recipe --output-dir run --overwrite --lr 1e30 --checkpoint-every 5
    kept run first 'a run that failed before it trained'

    # ---- interrupted, and the data have changed since ----
    gives 124 "$model" --train $recipe --epochs 20 --output-dir cut --checkpoint-steps 1 --time-limit 0.5s --cpu-share 10
    cp -a cut cut.before
    head -n 150 digits.csv > short.csv
    cp digits.csv long.csv
    cp short.csv digits.csv
    says 4 'samples' "$model" --train $recipe --epochs 20 --output-dir cut --checkpoint-steps 1 --resume
    kept cut cut.before 'another number of samples'
    cp long.csv digits.csv
    gives 0 "$model" --train $recipe --epochs 20 --output-dir cut --checkpoint-steps 1 --resume
    if [ "$(total cut epochs)" = 20 ] && [ "$(total cut steps)" = 200 ]; then pass
    else fail "a summary after a resumption has $(total cut epochs) epochs and $(total cut steps) steps"; fi

    # ---- somebody else's folder ----
    gives 0 "$model" --train $recipe --seed 2 --output-dir other
    cp -a other other.before
    says 5 'holds the checkpoint of an earlier run: --resume without a file' "$model" --train $recipe --resume run/checkpoint.mest --output-dir other
    kept other other.before '--resume FILE in the folder of another run'
    gives 0 "$model" --train $recipe --resume run/checkpoint.mest --output-dir other --overwrite
    if cmp -s run/model.onnx other/model.onnx; then pass; else fail 'another model than that of the checkpoint'; fi
    is_file other/checkpoint.mest
    is_gone other/pattern-start.json
    gives 0 "$model" --train $recipe --resume other/checkpoint.mest --output-dir ./other # its own
    for file in model.onnx summary.json log.jsonl log.csv; do
        mkdir "of-$file"
        echo "of before" > "of-$file/$file"
        says 5 "'of-$file/$file' is of an earlier run" "$model" --train $recipe --output-dir "of-$file"
        says 5 "'of-$file/$file' is of an earlier run" "$model" --train $recipe --output-dir "of-$file" --resume run/checkpoint.mest
        case $file in
        log.*) gives 0 "$model" --train $recipe --output-dir "of-$file" --resume ;; # killed before its first checkpoint
        *)
            says 5 "'of-$file/$file' is of an earlier run" "$model" --train $recipe --output-dir "of-$file" --resume
            if [ "$(ls -A "of-$file")" = "$file" ] && [ "$(cat "of-$file/$file")" = "of before" ]; then pass; else fail "$file was touched"; fi
            gives 0 "$model" --train $recipe --output-dir "of-$file" --overwrite
            ;;
        esac
        if cmp -s run/model.onnx "of-$file/model.onnx"; then pass; else fail "$file: another model"; fi
        lacks "of-$file/$file" "of before"
    done

    # ---- a complete run whose model is not what it was ----
    for damage in 'truncate -s 1000' 'truncate -s 0' rm 'cp digits.csv' flip folder; do
        rm -rf hurt
        cp -a run hurt
        case $damage in
        flip) printf x | dd of=hurt/model.onnx bs=1 seek=5000 conv=notrunc 2> /dev/null ;;
        folder) rm hurt/model.onnx && mkdir hurt/model.onnx ;;
        *) $damage hurt/model.onnx ;;
        esac
        gives 0 "$model" --train $recipe --output-dir hurt --resume
        if cmp -s run/model.onnx hurt/model.onnx; then pass; else fail "$damage: not written again"; fi
        gives 0 "$model" --train $(echo "$recipe" | sed 's/-q//') --output-dir hurt --resume
        has err 'the run is complete'
    done
    rm -rf hurt # of a version that noted no checksum
    cp -a run hurt
    sed -i '/model_crc32\|model_bytes/d' hurt/summary.json
    gives 0 "$model" --train $(echo "$recipe" | sed 's/-q//') --output-dir hurt --resume
    has err 'the run is complete'
    truncate -s 1000 hurt/model.onnx
    gives 0 "$model" --train $recipe --output-dir hurt --resume
    if cmp -s run/model.onnx hurt/model.onnx; then pass; else fail 'not written again without a checksum'; fi

    # ---- links ----
    for mode in '' --overwrite --resume; do
        for file in lock log.jsonl log.csv; do
            rm -rf linked
            cp -a first linked
            rm -f linked/model.onnx # else --resume finds nothing to do
            cp first/$file outside 2> /dev/null
            ln -sf ../outside linked/$file
            gives 5 "$model" --train $recipe --output-dir linked $mode
            case $mode in --*) has err "'linked/$file' is a symbolic link" ;; esac
            if cmp -s first/$file outside; then pass; else fail "$file $mode: written through a link"; fi
        done
        for file in checkpoint.mest model.onnx; do
            rm -rf linked
            cp -a cut.before linked
            cp run/$file outside
            if [ $file = checkpoint.mest ]; then cp cut.before/$file outside; fi
            cp outside outside.before
            ln -sf ../outside linked/$file
            gives 5 "$model" --train $recipe --epochs 20 --output-dir linked --checkpoint-steps 1 $mode
            has err "'linked/$file' is a symbolic link"
            if cmp -s outside.before outside; then pass; else fail "$file $mode: written through a link"; fi
        done
    done

    # ---- sweeps look at the same ----
    cat > sweep.yaml << EOF
model: $model
options: {data: "csv:digits.csv", input-shape: [1, 8, 8], scale-input: 16, limit: 320, val-split: 0.2, lr: 0.05, epochs: 1, threads: 1}
grid: {seed: [1, 2, 3]}
EOF
    gives 0 --sweep sweep.yaml --output-dir swept
    cut -d, -f1-5 swept/sweep.csv > want.csv
    cp swept/seed=1/model.onnx want.onnx
    printf x | dd of=swept/seed=1/model.onnx bs=1 seek=5000 conv=notrunc 2> /dev/null
    printf '{"event":"summary","after":{"accuracy":1,"loss":0}}' > swept/seed=2/summary.json
    gives 0 --sweep sweep.yaml --output-dir swept
    has err '3 runs, 1 of them done'
    if cmp -s want.onnx swept/seed=1/model.onnx; then pass; else fail 'a damaged model of a sweep'; fi
    cut -d, -f1-5 swept/sweep.csv > got.csv
    if cmp -s want.csv got.csv; then pass; else fail "table: $(diff want.csv got.csv | tr '\n' '|')"; fi
}
finish
