#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --sweep: the grid that the file says, means and spreads, going on after a kill and after a signal, runs that fail, files that are wrong.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
# file EPOCHS: the part that all sweeps here share
file() {
    cat << EOF
model: $model
options:
  data: csv:$digits
  input-shape: [1, 8, 8]
  scale-input: 16
  limit: 320
  val-split: 0.2
  batch-size: 32
  lr: 0.05
  epochs: $1
  threads: 1
  no-eval-before: true
EOF
}
results() { cut -d, -f1-7 "$1/sweep.csv"; } # without what depends on time

what='a grid'
{ file 2; cat << 'EOF'
grid:
  method: [static, "rigl:every=4,rate=.2"]
  sparsity: [0.8, 0.9]
  seed: [1, 2, 3]
EOF
} > grid.yaml
gives 0 --sweep grid.yaml --output-dir dry --dry-run
if [ "$(wc -l < out)" = 12 ]; then pass; else fail "$(wc -l < out) commands instead of 12"; fi
is_gone dry
sed -n 5p out | sed "s|^mest-run|'$run'|; s|\$| \"\$@\"|" > command.sh # a command is one a shell takes; it gives what the sweep gives
gives 0 --sweep grid.yaml --output-dir grid --json -q
json out
if [ "$(grep -c '"event":"run"' out)" = 12 ]; then pass; else fail 'not one event for each run'; fi
gives 0 --sweep grid.yaml --output-dir grid
if [ "$(grep -cE '^(static|rigl:every=4,rate=.2) +0\.[89] +3 ' out)" = 4 ]; then pass; else fail 'not four rows of three runs'; fi
if [ "$(head -n 1 grid/sweep.csv)" = 'method,sparsity,seed,state,accuracy,loss,stored_sparsity,steps,seconds,peak_bytes,folder' ]; then pass; else fail 'columns of sweep.csv'; fi
if [ "$(grep -c ',done,' grid/sweep.csv)" = 12 ]; then pass; else fail 'not 12 rows in sweep.csv'; fi
has grid/sweep.csv '"rigl:every=4,rate=.2",0.9,2,done,'
# mean and deviation, by another program
awk -F, '/^static,0.9/ { n++; s += $5; q += $5 * $5 } END { m = s / n; printf "%.2f %.2f\n", 100 * m, 100 * sqrt((q - n * m * m) / (n - 1)) }' grid/sweep.csv > want
sed -nE 's/^static +0\.9 +3 +([0-9.]+) +([0-9.]+) .*/\1 \2/p' out > got
if cmp -s want got; then pass; else fail "mean and sd $(cat got) instead of $(cat want)"; fi
sh command.sh --output-dir alone > out 2> err
if cmp -s alone/model.onnx 'grid/method=static,sparsity=0.9,seed=2/model.onnx'; then pass; else fail 'the fifth command gives another model than the sweep'; fi

what='done is done'
before=$(stat -c %Y%i grid/*/summary.json | tr '\n' ' ')
gives 0 --sweep grid.yaml --output-dir grid
has err '12 runs, 12 of them done'
if [ "$(stat -c %Y%i grid/*/summary.json | tr '\n' ' ')" = "$before" ]; then pass; else fail 'finished runs were made again'; fi
sed 's/epochs: 2/epochs: 3/' grid.yaml > other.yaml
says 5 'was made with other options' --sweep other.yaml --output-dir grid
if [ "$(stat -c %Y%i grid/*/summary.json | tr '\n' ' ')" = "$before" ]; then pass; else fail 'a refused sweep changed something'; fi
what='a damaged summary' # the run is complete: its summary is written again, from its log or, without one, from what is there
results grid > want
one='grid/method=static,sparsity=0.9,seed=2'
head -c 100 "$one/summary.json" > half && cp half "$one/summary.json"
gives 0 --sweep grid.yaml --output-dir grid
has err '12 runs, 11 of them done'
has "$one/messages.txt" 'it was written again, from log.jsonl'
results grid > got
if cmp -s want got; then pass; else fail "$what: $(diff want got | tr '\n' '|')"; fi
cp half "$one/summary.json"
rm "$one/log.jsonl"
gives 0 --sweep grid.yaml --output-dir grid
has "$one/messages.txt" 'it is made again'
results grid | cut -d, -f1-6 > got
if cut -d, -f1-6 want | cmp -s - got; then pass; else fail "$what, without a log: $(diff want got | tr '\n' '|')"; fi
gives 0 --sweep grid.yaml --output-dir grid
has err '12 runs, 12 of them done'
sed 's/seed: \[1, 2, 3\]/seed: [1, 2, 3, 4]/' grid.yaml > more.yaml # the grid may grow
gives 0 --sweep more.yaml --output-dir grid --jobs 3
has err '16 runs, 12 of them done'

what='kills'
{ file 12; cat << 'EOF'
  checkpoint-steps: 2
grid:
  - method: [mest-em, set]
    seed: [1, 2]
    sparsity: 0.9
  - variant:
      dense:
      fewer: {method: mest-ems, sparsity: 0.9, scheme: csr, forget-epoch: 6, forget-remove: 0.2}
EOF
} > kill.yaml
gives 0 --sweep kill.yaml --output-dir straight
for signal in KILL TERM INT KILL; do
    "$run" --sweep kill.yaml --output-dir killed > out 2> err < /dev/null &
    pid=$!
    sleep 0.7
    kill -$signal $pid 2> /dev/null
    wait $pid
    code=$?
    case $signal$code in KILL137 | TERM143 | *0) pass ;; INT*) pass ;; *) fail "exit code $code after $signal" ;; esac
done
gives 0 --sweep kill.yaml --output-dir killed
results straight > a
results killed > b
if cmp -s a b; then pass; else fail "results differ after kills: $(diff a b | head -n 4 | tr '\n' '|')"; fi
for folder in straight/*/; do
    if cmp -s "$folder/model.onnx" "killed/$(basename "$folder")/model.onnx"; then pass; else fail "$folder: another model after kills"; fi
done
has straight/sweep.csv ',,,fewer,done,'

what='runs that fail'
{ file 1; cat << 'EOF'
grid:
  scheme: [pattern, block4]
  method: [dsr, static]
  sparsity: 0.9
EOF
} > fails.yaml
gives 8 --sweep fails.yaml --output-dir fails
has err 'it will fail; the other runs are made'
has out "failed (8): scheme=pattern, method=dsr, sparsity=0.9: scheduler dsr"
if [ "$(grep -c ',done,' fails/sweep.csv)" = 3 ]; then pass; else fail 'the others did not run'; fi
if grep -qE '^pattern +dsr +0\.9 +0/1 +- ' out; then pass; else fail 'no row for what failed'; fi

what='the example'
(cd "$examples/../.." && "$run" --sweep examples/digits/sweep.yaml --output-dir "$work/example" --dry-run) > out 2> err < /dev/null
if [ "$(wc -l < out)" = 66 ]; then pass; else fail 'examples/digits/sweep.yaml does not stand for 66 runs'; fi

what='wrong files'
# wrong TEXT: the file is grid.yaml's head and stdin
wrong() {
    { file 1; cat; } > wrong.yaml
    gives 2 --sweep wrong.yaml --output-dir wrong
    has err "$1"
    is_gone wrong
}
echo 'grid: {lr: [0.1, fast]}' | wrong "lr=fast: --lr: 'fast' is not a number"
echo 'grid: {metod: [set]}' | wrong "line 13: unknown option '--metod'; did you mean '--method'?"
echo 'grid: {scheme: [csr, blok4], sparsity: 0.5}' | wrong "'blok4'"
echo 'grid: {sparsity: [0.5, 0.6], freeze: ["nothing*"]}' | wrong "--freeze: 'nothing*' matches no parameter"
echo 'grid: {method: [zet]}' | wrong "'zet' is none of static"
echo 'grid: {sparsity: 0.9, method: [static, lottery]}' | wrong '11 rounds of pruning and one before need at least 12 epochs, the run has 1'
echo 'grid: {sparsity: 0.9, epochs: [12, 6], method: [static, lottery], seed: [1, 2]}' | wrong 'need at least 12 epochs, the run has 6' # a pair of known values
has err 'sparsity=0.9, epochs=6, method=lottery, seed=1'
echo 'grid: {sparsity: 0.9, method: ["rigl:start=.9,stop=.1"]}' | wrong 'between start=0.9 and stop=0.1'
echo 'grid: {sparsity: 0.9, method: set, scheduler: [mest]}' | wrong 'both move weights'
echo 'grid: {seed: [1, 1]}' | wrong "has the value '1' twice"
echo 'grid: {seed: []}' | wrong "'seed' has no values"
echo 'grid: [{seed: 1, x: {a: {lr: 1}}}, {seed: 1, x: {a: {lr: 2}}}]' | wrong 'two runs with different options are both seed=1, x=a'
echo 'gird: 1' | wrong "'gird' is none of model, options, grid, average"
echo 'average: lr' | wrong "average names 'lr', which is no axis"
echo 'grid: {nesterov: 3}' | wrong "'nesterov' is a switch"
echo 'grid: {eval: true}' | wrong 'always train'
echo 'grid: {resume: x}' | wrong "'resume' is set by the sweep itself"
printf 'grid: {seed: 1}\ngrid: {seed: 2}\n' | wrong "line 14: 'grid' stands twice in the file"
printf '  epochs: 2\n' | wrong "line 13: 'epochs' stands twice in options"
echo 'grid: {run: {a: {lr: 1, lr: 2}}}' | wrong "line 13: 'lr' stands twice in a"
printf -- '---\nmodel: x\n' | wrong 'line 13: a second document begins'
printf 'grid: {seed: 1}\n...\n' > ends.part
{ file 1; cat ends.part; } > ends.yaml
gives 0 --sweep ends.yaml --output-dir ends --dry-run
printf 'id,forgets\n1\n' > damaged.csv
printf 'mine\n' > mine.csv
for late in import=nowhere.csv import=damaged.csv export=mine.csv; do
    { file 4; echo "grid: {scheduler: [\"forgetting:epoch=1,count=4\", \"forgetting:epoch=1,count=3,$late\"]}"; } > wrong.yaml
    case $late in *damaged*) gives 4 --sweep wrong.yaml --output-dir wrong ;; *) gives 5 --sweep wrong.yaml --output-dir wrong ;; esac
    has err "${late#*=}"
    is_gone wrong
done
has mine.csv mine
echo 'grid: {scheduler: ["forgetting:epoch=1,count=4", "forgetting:epoch=1,count=320"]}' | wrong '320 of 320 samples to remove'
echo 'grid: {seed: [1' | wrong 'line '
printf 'grid: {%s: 1}\n' "$(for i in 1 2 3 4 5 6 7 8 9; do printf 'a%s: {1: , 2: , 3: , 4: , 5: , 6: },' $i; done) seed" | wrong 'more than 10000 runs'
{ file 1; echo 'grid: {limit: [100, 200], data: ["csv:nowhere.csv"]}'; } > wrong.yaml
gives 4 --sweep wrong.yaml --output-dir wrong
has err nowhere.csv
is_gone wrong
printf 'options: {epochs: 1}\n' > wrong.yaml
says 2 'no model is named' --sweep wrong.yaml --output-dir wrong
says 5 'nowhere.yaml' --sweep nowhere.yaml --output-dir wrong
says 2 '--sweep needs --output-dir' --sweep grid.yaml
says 2 '--lr is for the runs' --sweep grid.yaml --output-dir wrong --lr 1
says 2 'the model stands in the file' "$model" --sweep grid.yaml --output-dir wrong
says 2 '--jobs needs --sweep' "$model" --train --jobs 2
printf x > plain
says 5 "'plain" --sweep grid.yaml --output-dir plain
finish
