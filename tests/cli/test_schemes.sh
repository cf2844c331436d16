#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every sparse scheme under every mode of MEST, end to end: it learns, its counts are those of the method, one and two threads give the same
# bytes, both exports say the same. Then schemes layer by layer, distributions, files of ratios and of masks.
run=$1 json_lines=$2 examples=$5
. "$(dirname "$0")/lib.sh"
bundled_digits
data="--data csv:$digits --limit 480 --input-shape 1,8,8 --scale-input 16 --val-split 0.2 --seed 1"
recipe="$data -b 32 --lr 0.05 --sched cosine --mutate-every 1 --epochs 5 --no-eval-before"
same() { if cmp -s "$1" "$2"; then pass; else fail "$1 and $2 differ ($what)"; fi; }
above() { if awk "BEGIN { exit !($1 >= $2) }" 2> /dev/null; then pass; else fail "$3: $1 is below $2 ($what)"; fi; }
# kept WEIGHT NUMBER SCHEME: what the report of the run says of a weight
kept() {
    if grep -qE "^  $1 +$3 +\[[0-9,]+\] +$2 of " out; then pass; else fail "$what: $1 is not $3 with $2 stored: $(grep "$1" out)"; fi
}
# conv2 [64,32,3,3] and conv3 [64,64,3,3]: stored at the end of a run
#       scheme      sparsity conv2 conv3
schemes='csr         .9 1843 3686
         block8      .9 1840 3688
         punched8x4  .9 1856 3680
         pattern     .9 2048 3840
         nm1:8       .875 2304 4608
         nm2:4x4     .5 9216 18432
         filter      .5 9216 9216
         channel     .5 9216 9216'
# shellcheck disable=SC2086
{
    echo "$schemes" | while read -r scheme sparsity conv2 conv3; do
        for mode in vanilla em ems; do
            what="$scheme $mode" common="$recipe --scheme $scheme --sparsity $sparsity --method mest-$mode"
            gives 0 "$model" --train $common -t 1 -o straight.onnx
            kept conv2.weight "$conv2" "$scheme"
            kept conv3.weight "$conv3" "$scheme"
            accuracy=$(sed -n 's/.* \([0-9.]*\) %.*after training.*/\1/p' out)
            # vanilla replaces a fifth of the channels before the last epoch, too
            case $scheme-$mode in filter-vanilla | channel-vanilla) least=30 ;; *) least=65 ;; esac
            above "${accuracy:-0}" $least 'accuracy'
            gives 0 "$model" --train $common -t 2 -o threads.onnx
            same straight.onnx threads.onnx
            [ $mode = ems ] || continue
            gives 0 straight.onnx --eval $data --json
            dense=$("$json_lines" summary metrics accuracy < out)
            gives 0 "$model" --train $common -t 2 -o sparse.onnx --export sparse
            gives 0 sparse.onnx --eval $data --json
            if [ "$("$json_lines" summary metrics accuracy < out)" = "$dense" ]; then pass; else fail "$what: the sparse export has another accuracy"; fi
            # a pruned file pruned again keeps what it has: the scheme recognises its own pattern
            gives 0 straight.onnx --eval $data --scheme $scheme --sparsity $sparsity --json
            if [ "$("$json_lines" summary metrics accuracy < out)" = "$dense" ]; then pass; else fail "$what: pruned once more it has another accuracy"; fi
        done
        echo "$passed $failed" > counts
    done
    read -r passed failed < counts

    what='layer by layer'
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.75 --scheme 'conv2=pattern,fc=csr:0.5,conv3*=nm1:4,block8' -o x.onnx
    kept conv2.weight 4608 pattern
    kept conv3.weight 9216 nm1:4
    kept fc.weight 320 csr
    gives 0 "$model" --train $recipe --epochs 1 --scheme 'conv3=nm1:4' -o x.onnx # no sparsity but its own
    kept conv3.weight 9216 nm1:4
    kept conv2.weight 18432 dense
    gives 0 "$model" --train $recipe --epochs 1 --scheme pattern -o x.onnx # masks alone
    kept conv2.weight 8192 pattern
    says 2 'no parameter' "$model" --train $recipe --sparsity 0.9 --scheme 'konv2=pattern'
    says 2 "'fc.bias' matches no weight of a layer" "$model" --train $recipe --rules 'fc.bias=csr:.9'
    says 2 "'bn*' matches no weight of a layer" "$model" --train $recipe --sparsity 0.5 --scheme 'bn*=csr,block4'
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.5 --scheme 'fc*=dense,block4' -o x.onnx
    says 2 'no sparse format' "$model" --train $recipe --sparsity 0.9 --scheme blok
    says 2 'no sparse format' "$model" --train $data --scheme blok
    gives 0 "$model" --train $recipe --epochs 1 --rules 'conv2=nm2:4' -o x.onnx # what it leaves out by itself
    kept conv2.weight 9216 nm2:4
    kept conv3.weight 36864 dense
    says 2 "'conv2.weight' is to be csr, but nothing says how sparse" "$model" --train $data --rules 'conv2=csr'
    says 2 "'conv2.weight' is to be filter, but nothing says how sparse" "$model" --train $data --rules 'conv3=csr:.5;conv2=filter'
    says 2 'below 0.5556' "$model" --train $recipe --sparsity 0.5 --scheme pattern
    says 2 'below 0.75' "$model" --train $recipe --sparsity 0.5 --scheme nm1:4
    # what some weights cannot have leaves those dense; where it is none, or nothing is left, nothing is trained
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.9 --scheme 'conv3=csr,nm1:3' -v -o x.onnx
    has err "'conv2.weight' stays dense: nm1:3: 32 inputs are not a multiple of 3"
    says 3 "no weight would be sparse: 'conv2.weight' stays dense: nm1:3: 32 inputs are not a multiple of 3" "$model" --train $recipe --sparsity 0.9 --scheme nm1:3 -q -o none.onnx
    says 3 'no weight would be sparse' "$model" --train $recipe --sparsity 0.9 --dense-layers 'conv*,fc*' -o none.onnx
    says 2 'nothing is stored of any weight' "$model" --train $recipe --sparsity 0.9999 --scheme block16 -q -o none.onnx
    is_gone none.onnx
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.9 --scheme 'conv2=block16:.9999,csr' -o x.onnx
    has err "nothing of 'conv2.weight' is stored"
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.9 --scheme pattern --dense-layers none -v -o x.onnx
    has err "'fc.weight' is block4: pattern: its masks are for 3x3 kernels"
    kept fc.weight '[0-9]*' block4

    what='whole channels'
    gives 0 "$model" --train $recipe --sparsity 0.5 --scheme filter --method mest-ems --dense-layers none -o x.onnx --output-dir whole
    has err 'will be stored'
    gives 0 "$model" --train $recipe --sparsity 0.5 --scheme filter --method mest-ems --dense-layers none -o small.onnx --export shrunk
    kept conv1.weight 144 filter # made by half of its filters
    kept conv2.weight 4608 filter
    above "$(wc -c < x.onnx)" "$(($(wc -c < small.onnx) * 3))" 'the small file is a third'
    gives 0 x.onnx --eval $data --json
    whole=$("$json_lines" summary metrics accuracy < out)
    gives 0 small.onnx --eval $data --json
    if [ "$("$json_lines" summary metrics accuracy < out)" = "$whole" ]; then pass; else fail "$what: the small file has another accuracy"; fi
    gives 0 small.onnx --train $recipe -o y.onnx # and trains on
    # methods that are not for channels say so before the run, the others train, stop and go on
    for method in rigl deepr snfs snip grasp lottery:rounds=2 magnitude dsr 'static --scheduler sieve'; do
        what="filter $method"
        gives 8 "$model" --train $(echo "$recipe" | sed 's/--mutate-every 1//') --sparsity 0.5 --scheme filter --method $method --output-dir not-begun
        has err "'channels of conv2.weight'"
        is_gone not-begun/log.jsonl
    done
    for method in set dsr:every=1,unit=epochs,threshold=1 magnitude:every=1,unit=epochs,scope=global magnitude:mode=oneshot lottery:rounds=2,values=keep \
        'mest-em --scheduler sieve:every=1,freeze_from=1'; do
        what="filter $method" common="$recipe --sparsity 0.5 --scheme filter --method $method"
        case $method in mest* | set) ;; *) common=$(echo "$common" | sed 's/--mutate-every 1//g') ;; esac
        gives 0 "$model" --train $common -t 1 -o straight.onnx
        gives 0 "$model" --train $common -t 2 -o threads.onnx
        same straight.onnx threads.onnx
    done
    says 3 'not for schemes' "$model" --train $recipe --sparsity 0.5 --scheme filter --distribution erk -o y.onnx
    says 2 'leaves none' "$model" --train $recipe --sparsity 0.999 --scheme filter -o y.onnx
    gives 0 "$model" --train $recipe --epochs 1 --scheme 'fc=filter:0.5,conv2=filter:0.5' -v -o y.onnx
    has err "'fc.weight' keeps all its channels"

    what='distributions'
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.9 --scheme csr --distribution erk --dense-layers none -o x.onnx
    kept conv1.weight 288 csr
    # 56,224 weights keep 5,622.4: conv1 and fc whole, 4,694.4 for the others by O + I + kh + kw: 102 and 134 parts
    kept conv2.weight 2029 csr
    kept conv3.weight 2665 csr
    gives 0 "$model" --train $recipe --epochs 1 --sparsity 0.9 --scheme csr --distribution er --dense-layers none -o x.onnx
    says 2 'uniform|erk|er' "$model" --train $recipe --sparsity 0.9 --distribution some
    printf 'prune_ratios:\n  conv2.weight:\n    0.6\n  module.fc.weight:\n    0.25\nrho:\n  0.001\n' > ratios.yaml
    gives 0 "$model" --train $recipe --epochs 1 --scheme csr --ratios ratios.yaml -o x.onnx
    kept conv2.weight 7373 csr
    kept fc.weight 480 csr
    kept conv3.weight 36864 dense
    printf 'prune_ratios:\n  conv9.weight:\n    0.6\n  layer1.0.conv1.weight:\n    0.9\n' > ratios.yaml
    gives 2 "$model" --train $recipe --ratios ratios.yaml
    has err 'no parameter for 2 names: conv9.weight, layer1.0.conv1.weight'
    says 5 "control characters" "$model" --train $recipe --ratios "$model"
    says 5 'nowhere.yaml' "$model" --train $recipe --ratios nowhere.yaml

    what='masks'
    printf '# corners\nxx.\nxx.\n...\n\n...\n.xx\n.xx\n' > masks.txt
    gives 0 "$model" --train $recipe --sparsity 0.9 --scheme pattern --patterns masks.txt -o x.onnx --output-dir masks
    kept conv2.weight 2048 pattern
    says 5 'not a text' "$model" --train $recipe --sparsity 0.9 --scheme pattern --patterns "$model"
}
finish
