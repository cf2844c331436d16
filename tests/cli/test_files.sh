#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files that an option names and that are none, or not what they should be: named pipes (nobody is at the other end), devices without an end, text nested
# without an end. Each is refused at once with a message that names it, and what stands where something is to be written stays.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
mkfifo pipe || exit 1
cat > limited << EOF
#!/bin/sh
exec timeout -k 1 20 "$run" "\$@"
EOF
chmod +x limited
run=$work/limited
small="--data csv:$digits --limit 320 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --lr 0.05 --seed 1 --no-eval-before -q -t 1"
is() { if [ "$1" = "$2" ]; then pass; else fail "$3: '$1' instead of '$2'"; fi; }
# shellcheck disable=SC2086
{
    # ---- reading ----
    for file in pipe /dev/zero; do
        says 5 "$file" "$model" --train $small --scheduler "forgetting:import=./$file,count=3"
        says 5 "$file: not a regular file" "$model" --train $small --scheduler "forgetting:import=$file,epoch=1,count=3" --epochs 2
        says 3 "$file" "$file" --train $small
        gives 5 --sweep "$file" --output-dir swept
        has err "--sweep: '$file': not a regular file"
        says 5 "$file" "$model" --train $small --sparsity 0.5 --ratios "$file"
        says 5 "$file" "$model" --train $small --scheme pattern --patterns "$file"
        says 5 "$file" "$model" --train $small --resume "$file"
        for data in "csv:$file" "npy:$file,$file" "idx:$file,$file" "cifar10:$file" "csv:$digits --val csv:$file"; do
            gives 4 "$model" --train --data $data --input-shape 1,8,8 --scale-input 16
            has err "$file"
        done
    done
    mkdir piped
    mkfifo piped/log.jsonl
    says 5 'piped/log.jsonl' --report piped
    says 5 'piped/log.jsonl' "$model" --train $small --output-dir piped
    mkdir -p caches/mest
    XDG_CACHE_HOME=$work/caches
    export XDG_CACHE_HOME
    gives 0 "$model" --train $small --max-steps 2 --tune fast
    for cache in caches/mest/*; do rm "$cache" && mkfifo "$cache"; done
    gives 0 "$model" --train $small --max-steps 2 --tune fast
    says 8 'not a regular file' "$model" --train $small --scheduler ./pipe
    says 8 'no ELF file' "$model" --train $small --scheduler "$digits"

    # ---- depth ----
    levels() { awk -v n="$1" 'BEGIN { printf "other: "; for (i = 0; i < n; i++) printf "["; for (i = 0; i < n; i++) printf "]"; print "\nprune_ratios:\n  conv2.weight: 0.5" }'; }
    blocks() { awk -v n="$1" 'BEGIN { print "grid:"; for (i = 1; i < n; i++) printf "%*sa:\n", i, "" }'; }
    levels 60 > fine.yaml
    gives 0 "$model" --train $small --max-steps 1 --ratios fine.yaml --scheme csr
    levels 20000 > deep.yaml
    says 5 'deep.yaml' "$model" --train $small --ratios deep.yaml --scheme csr
    has err 'line 1: nested deeper than 64 levels'
    blocks 100 > deep.yaml
    says 5 'nested deeper than 64 levels' "$model" --train $small --ratios deep.yaml --scheme csr
    gives 2 --sweep deep.yaml --output-dir swept
    has err 'deep.yaml, line 65: nested deeper than 64 levels'
    levels 20000 > deep.yaml
    gives 2 --sweep deep.yaml --output-dir swept
    has err 'deep.yaml, line 1: nested deeper than 64 levels'

    # ---- forgetting counts ----
    gives 0 "$model" --train $small --epochs 2 --scheduler forgetting:epoch=1,count=3,export=counts.csv
    head -c 18 counts.csv > header.csv
    : > empty.csv
    sed '$d' counts.csv | { cat; printf '319,'; } > cut.csv
    { cat counts.csv; sed -n 3p counts.csv; } > twice.csv
    sed '7s/^[0-9]*/256/' counts.csv > far.csv # of 320 samples 64 are held out
    sed '7s/,/,-/' counts.csv > negative.csv
    sed '7s/,.*/,x,1/' counts.csv > word.csv
    for file in header empty cut twice far negative word; do
        gives 4 "$model" --train $small --epochs 3 --scheduler forgetting:import=$file.csv,epoch=2,count=3 --output-dir never
        has err "scheduler forgetting: $file.csv, line "
        lacks never/log.jsonl '"event":"epoch"'
        rm -rf never
    done
    cp counts.csv kept.csv
    gives 0 "$model" --train $small --epochs 2 --scheduler forgetting:import=counts.csv,epoch=1,count=3,export=counts.csv
    if cmp -s counts.csv kept.csv; then pass; else fail 'counts that were read and written are others'; fi
    gzip -dc "$digits" > digits.csv
    cp digits.csv kept.csv
    for file in digits.csv pipe; do
        says 5 "$file" "$model" --train $small --epochs 2 --data csv:digits.csv --scheduler forgetting:epoch=1,count=3,export=$file
    done
    if cmp -s digits.csv kept.csv; then pass; else fail 'the data were replaced by counts'; fi
    # all of them: said before the first epoch
    for rule in fraction=.99999 remove=.99999 fraction=.999,keep_lowest=1; do
        gives 2 "$model" --train $small --epochs 3 --scheduler forgetting:epoch=1,$rule --output-dir never
        has err 'leave none'
        lacks never/log.jsonl '"event":"epoch"'
        rm -rf never
    done
    says 2 'forget-max' "$model" --train $small --forget-epoch 1 --forget-max 16384
    gives 0 "$model" --train $small --epochs 2 --forget-epoch 1 --forget-max 16383

    # ---- where a report goes ----
    gives 0 "$model" --train $small --epochs 1 --output-dir run
    cp -r run before
    ln run/log.jsonl hard.html
    ln -s run/summary.json soft.html
    printf '<!DOCTYPE html>\n<title>A page of mine</title>\n' > mine.html
    cp mine.html run/mine.html
    for place in run/log.jsonl run/checkpoint.mest run/summary.json run/model.onnx run/lock run/checkpoint.mest.prev ./run/../run/new.jsonl hard.html soft.html \
        mine.html run/mine.html digits.csv pipe /dev/full /dev/null; do
        says 5 "$place" --report run -o "$place"
    done
    rm run/mine.html
    if diff -r run before > /dev/null; then pass; else fail 'a refused report changed the run'; fi
    is "$(cat mine.html)" "$(printf '<!DOCTYPE html>\n<title>A page of mine</title>\n')" 'a page that is none of ours'
    [ -p pipe ] && [ -c /dev/full ] && [ -c /dev/null ] && pass || fail 'a pipe or device is gone'
    for i in 1 2; do
        gives 0 --report run
        gives 0 --report run -o page.html
        gives 0 --report run -o other
        gives 0 --report run -o run/second.html
    done
    says 5 '/dev/full' "$model" --train $small --max-steps 1 --profile /dev/full
    says 5 'pipe' "$model" --train $small --max-steps 1 --profile pipe
}
finish
