#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lists (*.def): each line has its file, the file defines what the line promises, and no file is forgotten.
root=$1
. "$(dirname "$0")/lib.sh"

# words LIST MACRO: the first argument of each line MACRO(...)
words() { sed -n "s/^$2(\([a-z0-9_]*\).*/\1/p" "$1"; }

# check LIST MACRO SYMBOL: file.c beside the list defines SYMBOL, where % is the file's name
check() {
    folder=$(dirname "$1")
    for name in $(words "$1" "$2"); do
        symbol=$(echo "$3" | sed "s/%/$name/")
        if [ ! -f "$folder/$name.c" ]; then
            fail "$1: $2($name), but there is no $folder/$name.c"
        elif grep -qE "$symbol" "$folder/$name.c"; then
            pass
        else
            fail "$folder/$name.c does not define $symbol"
        fi
    done
    # the other way round: a file that defines such a table is in the list
    any=$(echo "$3" | sed 's/%/([a-z0-9_]+)/')
    for file in $(grep -lE "^(extern )?const .*$any" "$folder"/*.c); do
        if words "$1" "$2" | grep -qx "$(basename "$file" .c)"; then pass; else fail "$file is not in $1"; fi
    done
    [ "$(words "$1" "$2" | sort | uniq -d)" = '' ] || fail "$1 names a file twice: $(words "$1" "$2" | sort | uniq -d | tr '\n' ' ')"
}
check ops/ops.def MEST_OPS 'mest_ops_%\['
check sparse/formats.def MEST_FORMAT 'mest_format_% '
check importers/sources.def MEST_SOURCE 'mest_source_%\['
check schedulers/schedulers.def MEST_SCHEDULER 'mest_scheduler_%( |\[|;)'
check runtime/passes/passes.def MEST_PASS 'mest_pass_% '
# Kernel lists: one file is compiled for several instruction sets; a macro of its header makes the table's name.
for list in ops/kernels/kernels.def sparse/kernels/kernels.def; do
    folder=$(dirname "$list")
    table='^const mest_kernel (PX|MEST_KERNEL)_TABLE\('
    for isa in AVX512 AVX2 NEON SCALAR; do
        for name in $(words "$list" "MEST_KERNELS_$isa"); do
            if grep -qsE "$table$name\\)" "$folder/$name.c"; then pass; else fail "$list: $folder/$name.c has no table for MEST_KERNELS_$isa"; fi
            # without the scalar form, another processor would have no kernel at all
            if words "$list" MEST_KERNELS_SCALAR | grep -qx "$name"; then pass; else fail "$list: $name has no MEST_KERNELS_SCALAR line"; fi
        done
        [ "$(words "$list" "MEST_KERNELS_$isa" | sort | uniq -d)" = '' ] || fail "$list names a file twice for $isa"
    done
    for file in $(grep -lE "$table" "$folder"/*.c); do
        if grep -q "($(basename "$file" .c))\$" "$list"; then pass; else fail "$file is not in $list"; fi
    done
done
check ops/xnn/kernels.def MEST_KERNELS_XNN 'mest_kernels_%_xnn\['
# Every line of a list is one of the macros meson reads: a mistyped one would silently build nothing.
for list in $(files ops sparse importers schedulers runtime | grep '\.def$'); do
    if sed '/^\/\*/,/\*\/$/d' "$list" | grep -vE '^$|^MEST_(OPS|FORMAT|SOURCE|SCHEDULER|PASS|KERNELS_(AVX512|AVX2|NEON|SCALAR|XNN))\([a-z0-9_]+\)$'; then
        fail "$list: these lines are no list entries"
    else
        pass
    fi
done
finish
