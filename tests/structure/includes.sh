#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include whom. A file may include headers of its own layer and of those below:
#
#   1 public     include/mest
#   2 base       runtime/: errors, memory, files, CPU, threads, tensors, graph, the operator interface
#   3 sparse     sparse/*.[ch]: formats, and what needs nothing but them
#   4 kernel     runtime/kernel.h: the kernel interface (it speaks of operators and of sparse weights)
#   5 ops        ops/, with ops/kernels and ops/xnn; sparse/kernels
#   6 runtime    the rest of runtime/
#   7 importers  importers/
#
# tools/ and schedulers/ see mest/*.h and their own headers only. Lists (*.def) are data: whoever makes a table includes them.
# tests/ and bench/ may look at everything.
root=$1
. "$(dirname "$0")/lib.sh"

layer() {
    case $1 in
    mest/*) echo 1 ;;
    mest_config.h) echo 1 ;; # made by the build
    runtime/status.* | runtime/oneline.h | runtime/alloc.* | runtime/process.* | runtime/guest.* | runtime/strmap.* | runtime/rng.* | runtime/cpu.* | runtime/threads.* | runtime/pool*.* | runtime/tensor.* | \
        runtime/graph.* | runtime/op.* | runtime/mapfile.* | runtime/outfile.* | runtime/runlock.*) echo 2 ;;
    sparse/kernels/*) echo 5 ;;
    sparse/*) echo 3 ;;
    runtime/kernel.h) echo 4 ;;
    ops/*) echo 5 ;;
    runtime/*) echo 6 ;;
    importers/* | onnx.pb-c.h) echo 7 ;;
    *) echo 9 ;;
    esac
}

quoted() { sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1"; }

for file in $(files runtime sparse ops importers | grep '\.[ch]$'); do
    mine=$(layer "$file")
    for header in $(quoted "$file"); do
        case $header in *.def) continue ;; esac
        theirs=$(layer "$header")
        if [ "$theirs" -le "$mine" ]; then pass; else fail "$file (layer $mine) includes $header (layer $theirs)"; fi
    done
done
for file in $(files include | grep '\.h$'); do
    for header in $(quoted "$file"); do
        case $header in mest/*) pass ;; *) fail "$file includes $header" ;; esac
    done
done
for folder in tools schedulers; do
    for file in $(files $folder | grep '\.[ch]$'); do
        for header in $(quoted "$file"); do
            case $header in
            mest/* | *.inc) pass ;; # *.inc: made by the build
            *) if [ -f "$folder/${header#"$folder"/}" ]; then pass; else fail "$file includes $header; only mest/*.h is for $folder/"; fi ;;
            esac
        done
    done
done
# A plugin needs nothing but the two plugin headers.
for file in $(files schedulers | grep '\.[ch]$'); do
    for header in $(quoted "$file" | grep '^mest/'); do
        case $header in mest/plugin.h | mest/plugin_options.h | mest/base.h) pass ;; *) fail "$file includes $header" ;; esac
    done
done
[ "$passed" -gt 200 ] || fail "only $passed include lines were found"
finish
