#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A good guest: the share of the time, pauses on a low battery and on heat. Readings come from a folder that looks like /sys.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
recipe='"lr": 0.01, "round_steps": 5, "nice": 0, "batch_delay_ms": 0, "max_accuracy_drop": 1'
train_body 1 200 > add.json
infer_body 1 1 > one.json
paused() { status && grep -q '"state":"paused"' answer; }
idle() { status && grep -q '"state":"idle"' answer; }
note() { status && grep -qF "$1" answer; }

# duty: a share of the time that passes, whatever training does in it: steps, tests of candidates, writing. On a busy machine the processor's part is smaller.
model_folder "{$recipe, \"duty\": 0.2}"
begin
asks 200 -d @add.json "$model/train"
# work: milliseconds of the processor that the service has had, of all its threads; nothing is asked of it meanwhile
work() { awk -v hertz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print int(1000 * ($12 + $13) / hertz) }' "/proc/$pid/stat"; }
now() { date +%s%N | cut -c1-13; }
if [ -r "/proc/$pid/stat" ]; then
    asks 200 -d '{"action":"start"}' "$model/train"
    if until_so at_least steps 3; then pass; else fail 'no steps'; fi
    steps=$(field steps) from=$(work) begun=$(now)
    sleep 4
    spent=$(($(work) - from)) passed_ms=$(($(now) - begun))
    echo "$spent of $passed_ms ms at a duty of 0.2"
    if [ $((spent * 10)) -le $((passed_ms * 3)) ]; then pass; else fail "$spent ms of work in $passed_ms ms"; fi
    if until_so at_least steps $((steps + 1)); then pass; else fail 'training stands still'; fi
    # changed while it trains; all of the time: the counter of the service itself is near to what passes
    asks 200 -d '{"action":"start","settings":{"duty":1}}' "$model/train"
    says '"duty":1'
else
    skip 'no /proc'
fi
ends

# readings
power=sys/class/power_supply heat=sys/class/thermal
mkdir -p $power/BAT0 $heat/thermal_zone0
echo Battery > $power/BAT0/type
echo 15 > $power/BAT0/capacity
echo Discharging > $power/BAT0/status
echo 40000 > $heat/thermal_zone0/temp
model_folder "{$recipe, \"duty\": 1, \"min_battery\": 20, \"max_temperature\": 50, \"sys_root\": \"$work/sys\"}"
begin
asks 200 -d @add.json "$model/train"
asks 200 -d '{"action":"start"}' "$model/train"
if until_so paused; then pass; else fail 'no pause on a low battery'; fi
says 'the battery is at 15 %, the limit is 20 %'
asks 200 -d @one.json "$model/infer"
steps=$(field steps)
echo Charging > $power/BAT0/status
status
if until_so at_least steps $((${steps:-0} + 5)); then pass; else fail 'it does not go on when the battery is charged'; fi
echo 55500 > $heat/thermal_zone0/temp
if until_so paused; then pass; else fail 'no pause on heat'; fi
says 'thermal_zone0 has 55.5 degrees, the limit is 50.0'
status
steps=$(field steps)
sleep 0.5
status
if [ "$(field steps)" = "$steps" ]; then pass; else fail 'steps in a pause'; fi
asks 200 -d @one.json "$model/infer"
echo 44000 > $heat/thermal_zone0/temp
if until_so at_least steps $((steps + 5)); then pass; else fail 'it does not go on when it is cool'; fi
# a pause does not hold up the end, and training that paused goes on after a start
echo 60000 > $heat/thermal_zone0/temp
until_so paused
ends
echo 40000 > $heat/thermal_zone0/temp
begin
if until_so at_least steps 3; then pass; else fail 'it does not go on after a start'; fi
ends

# what cannot be read is no rule that was kept: the model is served, not trained
model_folder "{$recipe, \"max_temperature\": 50, \"sys_root\": \"$work/nowhere\"}"
begin
asks 409 -d '{"action":"start"}' "$model/train"
says 'no thermal zone'
asks 200 -d @one.json "$model/infer"
ends
finish
