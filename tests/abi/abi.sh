#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The binary interface against what is recorded beside this script: exported functions with their prototypes, structures, enumerators.
# Nothing that is recorded may change; what is new must be at the end of a structure, and is named. abi.sh ROOT LIBRARIES CC...
#   MEST_ABI=exact    new things fail too: before a release
#   MEST_ABI=update   records what is new; MEST_ABI=break records whatever there is, for a new soversion
# LIBRARIES: paths of the shared libraries, separated by commas.
root=$1 libraries=$2
case $libraries in /*) ;; *) libraries=$(echo "$libraries" | tr ',' '\n' | sed "s|^\([^/]\)|$PWD/\1|" | tr '\n' ',' | sed 's/,$//') ;; esac
folder=$(cd "$(dirname "$0")" && pwd) || exit 1
. "$folder/../structure/lib.sh"
shift 2
mode=${MEST_ABI:-check}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
new() { if [ "$mode" = exact ]; then fail "not recorded: $1 (MEST_ABI=update $folder/abi.sh records it)"; else echo "new: $1"; fi; }

# plugin_options.h is code that plugins compile in: no interface
api=$(ls include/mest/*.h | grep -v /plugin_options.h)
cat $api > "$work/all.h"
awk -v mode=prototypes -f "$folder/lib.awk" "$work/all.h" | LC_ALL=C sort > "$work/prototypes.txt" || fail "prototypes are not understood"
awk -v mode=layout -f "$folder/lib.awk" "$work/all.h" > "$work/layout" || fail "structures are not understood"
headers=$(echo "$api" | sed 's/^include.\(.*\)/#include "\1"/')

# ---- functions: prototypes, and that the libraries export exactly these ----
sed 's/(.*//; s/.*[ *]//' "$work/prototypes.txt" | LC_ALL=C sort > "$work/functions"
: > "$work/exported"
for library in $(echo "$libraries" | tr ',' ' '); do
    nm -D --defined-only "$library" 2> /dev/null | awk '$2 ~ /^[TDRBVWi]$/ { print $NF }' | sed 's/@.*//' | grep '^mest_' >> "$work/exported"
done
if [ -s "$work/exported" ]; then
    LC_ALL=C sort -u "$work/exported" > "$work/exported.sorted"
    for f in $(LC_ALL=C comm -23 "$work/exported.sorted" "$work/functions"); do fail "exported, but in no public header: $f"; done
    for f in $(LC_ALL=C comm -13 "$work/exported.sorted" "$work/functions"); do
        case $f in mest_gradcheck*) [ -n "${libraries##*gradcheck*}" ] && continue ;; esac # not built
        fail "in a public header, but not exported: $f"
    done
    passed=$((passed + $(wc -l < "$work/exported.sorted")))
else
    skip "no nm: exported symbols are not looked at"
fi
if [ "$mode" = check ] || [ "$mode" = exact ] || [ "$mode" = update ]; then
    while IFS= read -r line; do
        if grep -qxF "$line" "$work/prototypes.txt"; then pass; else fail "gone or changed: $line"; fi
    done < "$folder/prototypes.txt"
    grep -vxFf "$folder/prototypes.txt" "$work/prototypes.txt" | while IFS= read -r line; do echo "$line"; done > "$work/added"
    while IFS= read -r line; do new "$line"; done < "$work/added"
fi

# ---- structures and enumerators: compiled assertions, so that any compiler and target can be asked ----
{
    echo "$headers"
    cat << 'END'
#include <stddef.h>
#define SIZE(s) sizeof(s)
END
    awk '$1 == "S" {
             size[$2] = $3
             # who has no size of its own, or keeps room for later fields, must not grow
             printf "_Static_assert(sizeof(%s) %s %s, \"%s changed its size\");\n", $2, ($4 == "fixed" ? "==" : ">="), $3, $2
         }
         $1 == "M" { printf "_Static_assert(offsetof(%s, %s) == %s && (sizeof(((%s *)0)->%s) == %s || %d), \"%s.%s moved or changed its size\");\n", $2, $3, $4, $2, $3, $5, ($3 == "reserved"), $2, $3 }
         $1 == "E" { printf "_Static_assert(%s == %s, \"%s has another value\");\n", $3, $4, $3 }' "$folder/layout.txt" |
        if grep -q . "$folder/layout.txt"; then grep -v '\.reserved moved'; else cat; fi
    # new members lie behind the recorded end, or where room was kept
    awk 'FNR == NR { if ($1 == "S") { size[$2] = $3; kind[$2] = $4 } if ($1 == "M") { have[$2 "." $3] = 1; if ($3 == "reserved") room[$2] = $4 } next }
         match($0, /M\([a-z_0-9]+, [a-z_0-9]+\)/) { split(substr($0, RSTART + 2, RLENGTH - 3), p, ", ")
             if ((p[1] in size) && !((p[1] "." p[2]) in have) && p[2] != "reserved")
                 printf "_Static_assert(offsetof(%s, %s) >= %s, \"%s.%s is new, but not at the end\");\n", p[1], p[2], (p[1] in room ? room[p[1]] : size[p[1]]), p[1], p[2] }' \
        "$folder/layout.txt" "$work/layout"
} > "$work/check.c"
assertions() { # NAME CC...
    name=$1
    shift
    if ! printf 'int a[sizeof(long) == 8 && sizeof(void *) == 8 ? 1 : -1];\n' | "$@" -x c -fsyntax-only - 2> /dev/null; then
        skip "structures on $name: not a 64-bit target that this compiler can serve"
    elif "$@" -std=c11 -Iinclude -fsyntax-only "$work/check.c" 2> "$work/errors"; then
        passed=$((passed + $(grep -c _Static_assert "$work/check.c")))
    else
        fail "structures on $name: $(grep -oE '"[a-z_0-9.]+ [a-zA-Z_ ,]*"|error: .*' "$work/errors" | sort -u | head -n 10 | tr '\n' ';')"
    fi
}
if [ "$mode" != break ]; then
    assertions "this machine" "$@"
    if command -v clang > /dev/null; then assertions aarch64 clang -target aarch64-linux-gnu -ffreestanding; else skip "structures on aarch64: no clang"; fi
fi
{
    echo "$headers"
    cat << 'END'
#include <stddef.h>
#include <stdio.h>
#define S(s) printf("S " #s " %zu\n", sizeof(s));
#define M(s, m) printf("M " #s " " #m " %zu %zu\n", offsetof(s, m), sizeof(((s *)0)->m));
#define E(t, e) printf("E " #t " " #e " %d\n", (int)e);
#define STATUS(name, value, text) E(mest_status, name)
int main(void)
{
    MEST_STATUS_LIST(STATUS)
END
    grep -v 'E(enum, ' "$work/layout"
    echo '    return 0; }'
} > "$work/tell.c"
if "$@" -std=c11 -Iinclude "$work/tell.c" -o "$work/tell" 2> "$work/errors" && "$work/tell" > "$work/told" 2> /dev/null; then
    awk '$1 == "M" && ($3 == "struct_size") { own[$2] = 1 } $1 == "M" && $3 == "reserved" { room[$2] = 1 } { line[NR] = $0 }
         END { for (i = 1; i <= NR; i++) { split(line[i], w, " "); print line[i] (w[1] == "S" ? (w[2] in own && !(w[2] in room) ? " grows" : " fixed") : "") } }' \
        "$work/told" > "$work/layout.txt"
    if [ "$mode" = update ] || [ "$mode" = break ]; then
        if [ "$failed" = 0 ] || [ "$mode" = break ]; then
            cp "$work/layout.txt" "$work/prototypes.txt" "$folder" && echo "recorded"
            failed=0
        fi
    else
        awk '{ k = $1 " " $2 " " ($1 == "S" ? "" : $3) } FNR == NR { have[k] = 1; next } !(k in have) { print $1 == "S" ? $2 : $2 "." $3 }' "$folder/layout.txt" "$work/layout.txt" > "$work/added"
        while IFS= read -r line; do new "$line"; done < "$work/added"
        awk '{ k = $1 " " $2 " " ($1 == "S" ? "" : $3) } FNR == NR { have[k] = 1; next } !(k in have) { print $1 == "S" ? $2 : $2 "." $3 }' "$work/layout.txt" "$folder/layout.txt" > "$work/gone"
        while IFS= read -r line; do fail "gone: $line"; done < "$work/gone"
    fi
else
    skip "new members are not looked for: $(head -n 1 "$work/errors")"
fi
finish
