#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Schedulers from outside the tree: built against the installed headers alone, found by pkg-config, loaded by the installed program. The
# example learns, resumes bit for bit, explains its options; one that lies is refused, and no model is written.
run=$1 json_lines=$2 examples=$5 build=$6
source=$(cd "$(dirname "$0")/../.." && pwd) build=$(cd "$build" && pwd)
. "$(dirname "$0")/lib.sh"
model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
for tool in meson pkg-config cc; do
    if ! command -v $tool > /dev/null; then
        skip "no $tool"
        finish
        exit 77
    fi
done
if ! DESTDIR=$work/root meson install -C "$build" --no-rebuild --quiet > install.log 2>&1; then
    fail "meson install: $(tail -n 3 install.log)"
    finish
    exit 1
fi
pc=$(find root -name mest.pc)
PKG_CONFIG_PATH=$work/$(dirname "$pc") PKG_CONFIG_SYSROOT_DIR=$work/root
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
flags=$(pkg-config --cflags mest) || fail 'pkg-config does not know mest'
LD_LIBRARY_PATH=$(dirname "$work/$(find root -name 'libmest.so' | head -n 1)")
export LD_LIBRARY_PATH
run=$work/$(find root -name mest-run | head -n 1)
# The sources stand alone here: nothing of the tree can be included by accident.
mkdir mine
cp "$source"/examples/custom_scheduler/* "$source"/tests/plugin/sample_scheduler.c mine
cd mine || exit 1
# compile FILE OUTPUT FLAGS..
compile() {
    # shellcheck disable=SC2086
    if cc -std=c11 -Wall -Wextra -Wpedantic -Werror -shared -fPIC -fvisibility=hidden ${3:-} $flags "$1" -o "$2" > out 2> err; then pass; else fail "$1 does not compile"; fi
}
compile grace.c grace.so
if nm -D --undefined-only grace.so | grep -q mest_; then fail 'grace.so needs symbols of the library'; else pass; fi
if [ "$(nm -D --defined-only grace.so | grep -c ' [TBDR] ')" = 1 ]; then pass; else fail "grace.so exports more than its entry"; fi
if meson setup built . > out 2> err && meson compile -C built > out 2> err; then pass; else fail 'its meson.build does not build'; fi

recipe="--data csv:$digits --limit 480 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 1 -b 32 --lr 0.05 --epochs 6 --scheme csr --sparsity 0.9
    --no-eval-before"
# shellcheck disable=SC2086
{
    gives 0 "$model" --train $recipe -t 1 --scheduler ./grace.so:rate=.3,grace=2 -o straight.onnx --output-dir straight
    accuracy=$(sed -n 's/.* \([0-9.]*\) %.*after training.*/\1/p' out)
    if awk "BEGIN { exit !(${accuracy:-0} >= 80) }"; then pass; else fail "accuracy $accuracy"; fi
    # 1843 + 3686 weights, three tenths of each at the end of epochs 0 to 4
    if [ "$(grep -c '"event":"mutation".*"removed":1657,"grown":1657' straight/log.jsonl)" -ge 1 ]; then pass; else fail 'other numbers of units moved'; fi
    gives 0 "$model" --train $recipe -t 2 --scheduler built/grace.so:rate=.3,grace=2 -o threads.onnx
    if cmp -s straight.onnx threads.onnx; then pass; else fail 'two threads, another build: another model'; fi
    for steps in 12 24 31; do # the end of an epoch, its middle
        rm -rf cut
        "$run" "$model" --train $recipe --scheduler ./grace.so:rate=.3,grace=2 --output-dir cut --checkpoint-steps 1 --log-interval 1 --json 2> err |
            head -n $steps > out
        gives 0 "$model" --train $recipe --scheduler ./grace.so:rate=.3,grace=2 --output-dir cut --resume
        if cmp -s straight.onnx cut/model.onnx; then pass; else fail "resumed near step $steps: another model"; fi
    done
    says 2 "scheduler grace: there is no option 'rte'; there are: rate, every, grace" "$model" --train $recipe --scheduler ./grace.so:rte=.3
    says 8 'a balanced scheme' "$model" --train $recipe --scheme pattern --scheduler ./grace.so
    says 8 'cannot be loaded' "$model" --train $recipe --scheduler ./nowhere.so
    size=$(wc -c < grace.so)
    for n in 100 1000 4096 $((size / 2)) $((size - 1)); do # the loader would end the process
        head -c "$n" grace.so > cut.so
        says 8 'cut short' "$model" --train $recipe --scheduler ./cut.so
        says 8 './cut.so' "$model" --train $recipe --scheduler cut.so
    done

    # lies
    compile sample_scheduler.c sample.so
    lies() {
        gives 8 "$model" --train $recipe --scheduler "./sample.so:do=$1${3:-}" -o lie.onnx
        has err "$2"
        is_gone lie.onnx
    }
    lies drop_range 'unit 18432 is out of range, there are 18432'
    lies drop_twice 'is proposed twice or out of order'
    lies drop_inactive 'cannot be dropped, it is not active'
    lies grow_active 'cannot grow, it is active already'
    lies grow_over 'but room was reserved for'
    lies grow_over 'but room was reserved for' ,at=step_end
    lies samples_twice 'sample 3 is removed already'
    gives 8 "$model" --train $recipe --scheduler ./sample.so:do=bad_param -o lie.onnx
    has err 'sparse parameter 7 does not exist'
    is_gone lie.onnx
    for lie in OTHER_ABI:'has ABI 2' SHORT_STRUCT:'needs' NO_NAME:'lacks a name' NO_SYMBOL:'has no symbol' REFUSES:'cannot serve'; do
        compile sample_scheduler.c lie.so "-DSAMPLE_${lie%%:*}=1"
        says 8 "${lie#*:}" "$model" --train $recipe --scheduler ./lie.so -o lie.onnx
        is_gone lie.onnx
    done
}
cd "$work" || exit 1
finish
