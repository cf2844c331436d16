#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SIGINT and SIGTERM: the step is finished, a checkpoint written, the exit code says which; a second signal ends at once.
run=$1 json_lines=$2
. "$(dirname "$0")/lib.sh"

# begin ARGUMENTS...: starts a run in the background; $pid. Shells start background jobs with SIGINT ignored: the program sets its own.
begin() {
    : > out
    : > err # or reaches would find the text of the run before
    "$run" m.onnx --train --data idx:x --epochs 1000 --log-interval 1 "$@" > out 2> err < /dev/null &
    pid=$!
}
# reaches TEXT [FILE]: waits until it stands in ./err or the other file, a minute at most
reaches() {
    i=0
    while ! grep -qF -e "$1" "${2:-err}" && [ $i -lt 1200 ]; do
        sleep 0.05
        i=$((i + 1))
    done
}
# ends CODE
ends() {
    wait "$pid"
    code=$?
    if [ "$code" = "$1" ]; then pass; else fail "exit code $code instead of $1"; fi
}
FAKE_STEP_MS=20
export FAKE_STEP_MS

for signal in INT:130 TERM:143; do
    begin --output-dir "run${signal%:*}" -o out.onnx
    reaches 'step 3/4'
    kill -"${signal%:*}" "$pid"
    ends "${signal#*:}"
    has err 'interrupted'
    has err 'with --resume goes on'
    is_file "run${signal%:*}/checkpoint.mest"
    is_gone out.onnx
done
json runINT/log.jsonl

# without a run folder the checkpoint goes beside the output, and is removed when the resumed run is complete
begin -o out.onnx
reaches 'step 3/4'
kill -INT "$pid"
ends 130
is_file out.onnx.checkpoint
gives 0 m.onnx --train --data idx:x --epochs 3 -o out.onnx --resume
has echo 'resumed'
is_file out.onnx
is_gone out.onnx.checkpoint

# nowhere to write
begin
reaches 'step 3/4'
kill -INT "$pid"
ends 130
has err 'no checkpoint'

# a second signal does not wait for a long step
FAKE_STEP_MS=30000
: > echo
begin -o out2.onnx
reaches 'a long step begins' echo
kill -INT "$pid"
sleep 0.2
if kill -0 "$pid" 2> /dev/null; then pass; else fail 'the first signal waits for the step'; fi
kill -INT "$pid"
ends 130
is_gone out2.onnx

# kill -9, then resume
FAKE_STEP_MS=20
begin --output-dir hard
reaches 'epoch 3/'
kill -9 "$pid"
wait "$pid" 2> /dev/null
is_file hard/checkpoint.mest
json hard/log.jsonl
FAKE_STEP_MS=0
gives 0 m.onnx --train --data idx:x --epochs 30 --output-dir hard --resume
has echo 'resumed'
json hard/log.jsonl

# a closed pipe is a write error, not a silent death
FAKE_STEP_MS=5
{ "$run" m.onnx --train --data idx:x --epochs 50 --log-interval 1 --json -o out3.onnx 2> err; echo $? > code; } | head -n 2 > out
if [ "$(cat code)" = 5 ]; then pass; else fail "closed pipe gives $(cat code)"; fi
finish
