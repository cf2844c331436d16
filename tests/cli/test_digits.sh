#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# End to end, with the real library: the bundled network on the bundled digits. Trains sparsely, evaluates the result, resumes after an
# interruption and after kill -9 to the same bytes, exports both forms, gives the documented exit codes.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
data="--data csv:$digits --limit 480 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 1 -t 2"
recipe="$data -b 32 --lr 0.05 --weight-decay 1e-4 --sched cosine --sparsity 0.9 --scheme block --method mest-em --mutate-every 1"
# above FILE EVENT KEYS.. LIMIT: the number is at least LIMIT
above() { if awk "BEGIN { exit !($1 >= $2) }" 2> /dev/null; then pass; else fail "$3: $1 is below $2"; fi; }
same() { if cmp -s "$1" "$2"; then pass; else fail "$1 and $2 differ"; fi; }

# shellcheck disable=SC2086
{
    # ---- info and explain ----
    gives 0 "$model" --info
    has out 'conv2.weight'
    has out 'running mean of BatchNormalization'
    gives 0 "$model" --explain --sparsity 0.9 -b 32 --json
    json out
    above "$("$json_lines" plan total_bytes < out)" 100000 'planned bytes'

    # ---- a straight run: dense and sparse export, evaluation of both ----
    gives 0 "$model" --train $recipe --epochs 6 -o dense.onnx --output-dir straight --json
    json out
    json straight/log.jsonl
    above "$("$json_lines" summary after accuracy < out)" 0.7 'accuracy after six epochs'
    above "$("$json_lines" summary sparsity < out)" 0.899 'sparsity'
    above "$("$json_lines" summary planned_bytes < out)" 1 'planned bytes'
    accuracy=$("$json_lines" summary after accuracy < out)
    same dense.onnx straight/model.onnx
    gives 0 "$model" --train $recipe --epochs 6 --export sparse -o sparse.onnx --no-eval-before
    if [ "$(wc -c < sparse.onnx)" -lt "$(wc -c < dense.onnx)" ]; then pass; else fail 'the sparse export is not smaller'; fi
    for file in dense.onnx sparse.onnx; do
        gives 0 $file --eval $data --json
        if [ "$("$json_lines" summary metrics accuracy < out)" = "$accuracy" ]; then pass
        else fail "$file: accuracy $("$json_lines" summary metrics accuracy < out) instead of $accuracy"; fi
        gives 0 $file --infer $data -o $file.csv --topk 1 -q
    done
    if awk -F, 'NF != 10 { exit 1 }' dense.onnx.csv && [ "$(wc -l < dense.onnx.csv)" = 359 ]; then pass; else fail 'shape of the outputs'; fi
    # what the model was trained with is in the file: without the options the accuracy is the same
    bare="--data csv:$digits --limit 480 --input-shape 1,8,8 --val-split 0.2 --seed 1 -t 2"
    gives 0 dense.onnx --eval $bare --json
    has err 'normalisation as in the model: --scale-input 16 --mean 0 --std 1'
    if [ "$("$json_lines" summary metrics accuracy < out)" = "$accuracy" ]; then pass; else fail 'accuracy with the normalisation of the model'; fi
    gives 0 dense.onnx --eval $bare --scale-input 1
    lacks err 'as in the model'
    gives 0 dense.onnx --infer $bare -o bare.csv --topk 1 -q
    same dense.onnx.csv bare.csv
    gives 0 sparse.onnx --info
    has out 'conv2.weight'
    has out 'trained with --scale-input 16 --mean 0 --std 1'

    # ---- one thread, the same bits ----
    gives 0 "$model" --train $recipe --epochs 6 -t 1 -o one.onnx --no-eval-before
    same dense.onnx one.onnx

    # ---- interrupted, resumed: the same bytes. Slowly, so that it is not over before the signal comes ----
    : > err
    "$run" "$model" --train $recipe --epochs 6 --output-dir stopped --log-interval 1 --cpu-share 10 > out 2> err &
    pid=$!
    i=0
    while ! grep -q 'epoch 3/6  step 1/' err && [ $i -lt 3000 ]; do sleep 0.02; i=$((i + 1)); done
    kill -INT $pid
    wait $pid
    code=$?
    if [ $code = 130 ]; then pass; else fail "exit code $code instead of 130"; fi
    is_gone stopped/model.onnx
    gives 0 "$model" --train $recipe --epochs 6 --output-dir stopped --resume
    same straight/model.onnx stopped/model.onnx
    cp stopped/summary.json summary.before
    gives 0 "$model" --train $recipe --epochs 6 --output-dir stopped --resume -o again.onnx
    has err 'the run is complete'
    same summary.before stopped/summary.json
    same straight/model.onnx again.onnx

    # ---- kill -9, resumed ----
    : > err
    "$run" "$model" --train $recipe --epochs 6 --output-dir killed --checkpoint-steps 7 --log-interval 1 --cpu-share 10 > out 2> err &
    pid=$!
    i=0
    while ! grep -q 'epoch 2/6  step 1[0-9]/' err && [ $i -lt 3000 ]; do sleep 0.02; i=$((i + 1)); done
    kill -9 $pid
    wait $pid 2> /dev/null
    gives 0 "$model" --train $recipe --epochs 6 --output-dir killed --checkpoint-steps 7 --resume
    same straight/model.onnx killed/model.onnx
    json killed/log.jsonl
    says 2 '' "$model" --train $recipe --lr 0.01 --epochs 6 --output-dir killed --resume -q
    # ---- so are other samples, or other weights, from the same data and model ----
    for other in '--scale-input 255' '--mean .5' '--std .25' '--augment flip' '--hflip .1' '--augment pad1' --from-scratch --start-dense; do
        says 2 'is of another run' "$model" --train $recipe $other --epochs 6 --output-dir killed --resume -q
    done

    # ---- logs in other forms; a resumed run goes on in the table and begins an event file of its own ----
    gives 0 "$model" --train $recipe --epochs 6 --mutate-every 1 --max-steps 60 --output-dir forms --log csv,tensorboard -q
    gives 0 "$model" --train $recipe --epochs 6 --mutate-every 1 --max-steps 60 --output-dir forms --log csv,tensorboard --overwrite -q
    is_gone forms/log.jsonl
    if [ "$(grep -c '^event,epoch,step' forms/log.csv)" = 1 ] && grep -q '^mutation,0,0,' forms/log.csv && grep -q '^epoch,' forms/log.csv; then pass
    else fail "forms/log.csv: $(head -n 3 forms/log.csv)"; fi
    if [ "$(awk -F, '{ print NF }' forms/log.csv | sort -u)" = 21 ]; then pass; else fail 'rows of log.csv differ in length'; fi
    for events in forms/events.out.tfevents.*; do
        has "$events" 'brain.Event:2'
        has "$events" 'loss/train'
        has "$events" 'density/conv2.weight'
    done
    says 2 "'tensorbored'" "$model" --train $recipe --log csv,tensorbored

    # ---- failures ----
    says 3 '' missing.onnx --info
    head -c 1000 "$model" > cut.onnx
    says 3 'cut.onnx' cut.onnx --info
    says 4 'missing.csv' "$model" --eval --data csv:missing.csv
    says 2 '' "$model" --eval --data nothing:x
    printf '1,2,3\n' > narrow.csv
    says 4 '' "$model" --eval --data csv:narrow.csv
    says 6 '' "$model" --train $data --lr 1e30 --epochs 3 -o nan.onnx --no-eval-before -q --progress off
    is_gone nan.onnx
    says 7 '' "$model" --train $data --memory-limit 1 -q
    says 8 'none.so' "$model" --train $data --scheduler ./none.so -q
}
finish
