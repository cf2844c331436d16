#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --report: the page holds the run and nothing from elsewhere; damaged and hostile logs; folders that are none. The pictures a run leaves.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
# data PAGE KEY..: the run as the page holds it
data() {
    sed -n '/^<script type="application\/json"/,/^<\/script>/p' "$1" | sed '1d;$d' | sed 's/^{/{"event":"page",/' > page.json
    shift
    "$json_lines" page "$@" < page.json
}
is() { if [ "$1" = "$2" ]; then pass; else fail "$3: '$1' instead of '$2'"; fi; }

recipe="--train --data csv:$digits --limit 480 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 -b 32 --lr 0.05 --seed 1 --epochs 5
  --sparsity 0.9 --scheme csr --mutate-every 1 --forget-epoch 3 --forget-remove 0.1"
# shellcheck disable=SC2086
gives 0 "$model" $recipe --output-dir run -q
for file in pattern-start.json pattern-end.json gallery.json forgetting.csv; do is_file run/$file; done
gives 0 --report run/
is_file run/report.html
is "$(cat out)" run/report.html 'what is printed'
gives 0 run --report -o other.html
if cmp -s run/report.html other.html; then pass; else fail 'two reports of one run differ'; fi
gives 0 --report run --json -o third.html
is "$("$json_lines" report output < out)" '"third.html"' 'the JSON event'
if grep -qE '(src|href) *=|https?://[^w]' run/report.html; then fail 'the page refers to something outside'; else pass; fi
is "$(data run/report.html summary sparsity)" "$({ tr -d '\n\t' < run/summary.json; echo; } | "$json_lines" summary sparsity)" 'sparsity of the summary'
is "$(data run/report.html epoch | grep -o '"epoch":[0-9]' | tr '\n' ' ')" '"epoch":0 "epoch":1 "epoch":2 "epoch":3 "epoch":4 ' 'epochs of the page'
# conv3 [64,64,3,3] at 90 %: 3686 stored, the same number before and after, and cells of 1x5 in 64 rows of 116
for when in start end; do
    is "$(data run/report.html pattern_$when layers | grep -o '"name":"conv3.weight","scheme":"csr","shape":\[64,64,3,3\],"stored":3686,' | wc -l)" 1 "conv3 at the $when"
done
# the page shows the layer first that moved most: distances of the two layers, 0 before training
is "$(data run/report.html pattern_start layers | grep -o '"distance":[0-9.]*' | sort -u)" '"distance":0' 'distance at the start'
is "$(data run/report.html pattern_end layers | grep -oE '"distance":0?\.[0-9]*' | wc -l)" 2 'distances at the end'
if cmp -s run/pattern-start.json run/pattern-end.json; then fail 'mutations left the picture as it was'; else pass; fi
# the gallery: ids that the counts name, most forgotten first, never forgotten ones with a count of 0
awk -F, 'NR > 1 && $2 > 0 { print $2 }' run/forgetting.csv | sort -rn | head -n 24 | tr '\n' ' ' > want
data run/report.html gallery forgotten | grep -o '"forgets":[0-9]*' | sed 's/.*://' | tr '\n' ' ' > have
if cmp -s want have && [ -s want ]; then pass; else fail "forgotten most: $(cat have) instead of $(cat want)"; fi
is "$(data run/report.html gallery never | grep -o '"forgets":0' | wc -l)" 24 'never forgotten'
# 64 pixels a digit, one byte each: 88 characters of base64
is "$(data run/report.html gallery never | grep -oE '"pixels":"[A-Za-z0-9+/]{86}=="' | wc -l)" 24 'pictures of 64 bytes'

# ---- resumed: what was drawn before the first step stays ----
cp run/pattern-start.json kept
rm run/summary.json
# shellcheck disable=SC2086
gives 0 "$model" $recipe --output-dir run --resume -q
if cmp -s kept run/pattern-start.json; then pass; else fail 'a resumed run drew its beginning anew'; fi
# ---- begun anew: no pictures of the earlier run ----
# shellcheck disable=SC2086
gives 0 "$model" --train --data csv:"$digits" --limit 64 --input-shape 1,8,8 --epochs 1 --output-dir run --overwrite -q
for file in pattern-start.json pattern-end.json gallery.json forgetting.csv; do is_gone run/$file; done
gives 0 --report run

# ---- hostile and damaged ----
mkdir bad
{
    printf '{"event":"start","model":"</script><script>alert(1)</script>.onnx","method":"x"}\n'
    printf 'garbage\n[1]\n{"event":"epoch","epoch":0,"step":3,"train":{"loss":null},"sparsity":0.5}\n{"event":7}\n{}\n{"event":"epoch","epo'
} > bad/log.jsonl
printf '{"event":"summ' > bad/summary.json
gives 0 --report bad
has err '3 lines of log.jsonl are damaged'
lacks bad/report.html '<script>alert'
lacks bad/report.html '</script><script>alert'
has bad/report.html '\u003c/script>'
mkdir empty
says 5 "log.jsonl" --report empty
: > empty/log.jsonl
says 5 'no epoch' --report empty
says 5 'nowhere' --report nowhere
says 5 'log.jsonl' --report m.onnx
says 2 'no model' --report
rm bad/summary.json
sed -i '2,3d;$d' bad/log.jsonl
says 5 'missing/dir' --report bad -o missing/dir/x.html
before=$(cksum < bad/report.html)
mkdir target
says 5 'target' --report bad -o target
is "$(cksum < bad/report.html)" "$before" 'a failed report touched another'
if ls bad/*.tmp-* target.tmp-* 2> /dev/null; then fail 'unfinished files are left'; else pass; fi
finish
