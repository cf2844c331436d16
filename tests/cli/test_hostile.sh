#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Hostile model files with a small stack and little memory: error returns with one message, never a crash or a hang; each file that must be
# refused is refused at the latest when its training or inference is planned. The project's own files, and those of MEST_SHARED.
run=$1 json_lines=$2
files=$PWD/$6
case $6 in /*) files=$6 ;; esac
. "$(dirname "$0")/lib.sh"
unset FAKE_ECHO
mkdir own
"$files" own || { fail 'the files could not be written'; finish; exit 1; }
ulimit -s 256
# The whole process, libraries and reserved addresses included; sanitizers reserve terabytes.
if (ulimit -v 262144 && "$run" --version > /dev/null 2>&1); then ulimit -v 262144; else echo 'no limit of addresses: this build needs more'; fi
tab=$(printf '\t')
try_all() {
    while IFS=$tab read -r name want why; do
        case $name in '#'*) continue ;; esac
        verdict=accept
        for mode in --info '--explain -b 2' '--explain -b 2 --program infer' '--check -b 2'; do
            # shellcheck disable=SC2086
            timeout 60 "$run" "$1/$name.onnx" $mode --memory-limit 64 -q > out 2> err < /dev/null
            code=$?
            case $code in
            0) pass ;;
            3 | 7)
                verdict=reject
                if [ "$(grep -c '^mest-run: ' err)" = 1 ] || grep -q '^verdict     it does NOT train' out; then pass; else fail "$name $mode: not one message"; fi
                ;;
            *) fail "$name $mode: exit code $code ($why)" ;;
            esac
            if grep -q -e Sanitizer -e 'runtime error' err; then fail "$name $mode: found by a sanitizer"; fi
        done
        if [ "$want" = either ] || [ "$want" = "$verdict" ]; then pass; else fail "$name: $verdict instead of $want ($why)"; fi
    done < "$1/hostile.tsv"
}
try_all own
hostile=$MEST_SHARED/fixtures/hostile
if [ -z "$MEST_SHARED" ] || [ ! -f "$hostile/hostile.tsv" ]; then skip 'the shared hostile files are not here (MEST_SHARED)'; else try_all "$hostile"; fi
finish
