#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A good guest, end to end with the real library: time limit, share of the time, pauses. Readings come from a folder that looks like /sys.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
digits=$examples/digits.csv.gz
if [ ! -f "$digits" ]; then
    skip "no bundled digits in $examples"
    finish
    exit 77
fi
unset FAKE_ECHO
field() { "$json_lines" "$@" < out; }
holds() { if awk "BEGIN { exit !($1) }" 2> /dev/null; then pass; else fail "$2: $1"; fi; }
# train FOLDER EPOCHS ARGUMENTS: small steps
train() {
    folder=$1 epochs=$2
    shift 2
    set -- "$examples/digits_cnn.onnx" --train --data "csv:$digits" --limit 512 --input-shape 1,8,8 --scale-input 16 -b 32 --seed 1 -t 1 --epochs "$epochs" \
        --sparsity 0.9 --output-dir "$folder" --json -q "$@"
    "$run" "$@" > out 2> err < /dev/null
    code=$?
}
is() { if [ "$code" = "$1" ]; then pass; else fail "exit code $code instead of $1: $(tail -1 err)"; fi; }

# what does not change a rule does not change a result; resumed is the same, to the bit
train whole 6
is 0
train timed 1000000 --time-limit 1s
is 124
has err 'the time limit is over'
has err 'with --resume goes on'
is_file timed/checkpoint.mest
train short 6 --cpu-share 60 --time-limit 0.15 # however far it comes
if [ $code = 124 ]; then
    train short 6 --resume
fi
is 0
if cmp -s whole/model.onnx short/model.onnx; then pass; else fail 'a run that was cut and went on is another'; fi

# a share of the time: three times the rest there was work
(
    "$run" "$examples/digits_cnn.onnx" --train --data "csv:$digits" --input-shape 1,8,8 --scale-input 16 -b 32 -t 1 --epochs 100000 --cpu-share 25 --time-limit 4 \
        -q -o share.onnx > /dev/null 2>&1 < /dev/null
    times > spent
)
seconds=$(awk 'NR == 2 { gsub("s", ""); for (i = 1; i <= 2; i++) { split($i, t, "m"); sum += 60 * t[1] + t[2] } print sum }' spent)
holds "$seconds > 0.02 && $seconds < 2" 'processor time of four seconds at a quarter'

# until_pause: of the run that was begun in the background; ./out has to be empty before it is
until_pause() {
    i=0
    while ! grep -q '"event":"pause"' out && [ $i -lt 1200 ]; do
        sleep 0.05
        i=$((i + 1))
    done
}

# a pause while a file exists, and on by itself
: > halt
: > out
train paused 3 --pause-file "$PWD/halt" --time-limit 600 &
until_pause
has out "halt' exists"
lacks out '"event":"epoch"'
rm halt
wait
has out '"event":"continue"'
is_file paused/model.onnx
# an evaluation before the first step pauses, too, and says so
: > halt
: > out
train looking 1 --val-split .5 --pause-file "$PWD/halt" --time-limit 600 &
until_pause
has out "halt' exists"
lacks out '"event":"start"'
rm halt
wait
has out '"event":"continue"'
is_file looking/model.onnx
# a signal ends a pause at once
: > halt
: > out
"$run" "$examples/digits_cnn.onnx" --train --data "csv:$digits" --input-shape 1,8,8 --scale-input 16 -b 32 -t 1 --epochs 3 --json --pause-file halt --output-dir cut \
    > out 2> err < /dev/null &
pid=$!
until_pause
kill -TERM $pid
wait $pid
code=$?
is 143
is_file cut/checkpoint.mest
rm halt

# readings
power=sys/class/power_supply heat=sys/class/thermal
mkdir -p $power/BAT0 $power/AC $power/mouse $heat/thermal_zone0 $heat/thermal_zone1 $heat/cooling_device0
echo Mains > $power/AC/type
echo Battery > $power/BAT0/type
echo 15 > $power/BAT0/capacity
echo Discharging > $power/BAT0/status
echo Battery > $power/mouse/type
echo Device > $power/mouse/scope
echo 1 > $power/mouse/capacity
echo 40000 > $heat/thermal_zone0/temp
echo 55500 > $heat/thermal_zone1/temp
train low 1 --min-battery 20 --sys-root sys --time-limit 1
is 124
has out 'the battery is at 15 %, the limit is 20 %'
echo Charging > $power/BAT0/status
train charging 1 --min-battery 20 --sys-root sys
is 0
lacks out '"event":"pause"'
train hot 1 --max-temp 50 --sys-root sys --time-limit 1
is 124
has out 'thermal_zone1 has 55.5 degrees, the limit is 50.0'
train warm 1 --max-temp 60 --sys-root sys
is 0
# it cools: on by itself, but not before three degrees below the limit
: > out
train cools 1 --max-temp 50 --sys-root sys --time-limit 600 &
until_pause
echo 48000 > $heat/thermal_zone1/temp
sleep 1.5
lacks out '"event":"continue"'
echo 45000 > $heat/thermal_zone1/temp
wait
has out '"event":"continue"'
is_file cools/model.onnx
# what cannot be kept is refused
train none 1 --max-temp 50 --sys-root nowhere
is 2
has err 'no thermal zone'
train none 1 --time-limit soon
is 2
has err 'is no time'
train none 1 --cpu-share 0
is 2
finish
