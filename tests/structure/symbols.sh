#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the libraries export, and that they export all their public headers declare. symbols.sh ROOT LIBMEST.SO [NM [LIBMEST-GRADCHECK.SO]]
root=$1 library=$2 nm=${3:-nm} gradcheck=$4
case $library in /*) ;; *) library=$PWD/$library ;; esac
case $gradcheck in '' | /*) ;; *) gradcheck=$PWD/$gradcheck ;; esac
. "$(dirname "$0")/lib.sh"
if ! command -v "$nm" > /dev/null; then
    skip "no $nm: exported symbols are not looked at"
    finish
    exit
fi
exported=$("$nm" -D --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
for symbol in $exported; do
    case $symbol in
    mest_*) pass ;;
    __asan_* | __ubsan_* | __sanitizer_* | __odr_asan* | __tsan_* | __gcov_* | __llvm_*) pass ;; # of sanitizers and coverage builds
    *) fail "exported: $symbol" ;;
    esac
done
# The entry of a plugin is exported by the plugin, not by the library.
declared() { sed -n 's/.*MEST_API [a-z0-9_ *]*[ *]\(mest_[a-z0-9_]*\)(.*/\1/p' "$@" | sort -u; }
for name in $(declared include/mest/*.h); do
    case $name in mest_scheduler_entry | mest_gradcheck | mest_gradcheck_options_init) continue ;; esac
    if echo "$exported" | grep -qx "$name"; then pass; else fail "declared in include/mest, not exported: $name"; fi
done
# The second library lives in the same process under the same names: it must show its entry and nothing else.
if [ -n "$gradcheck" ]; then
    shown=$("$nm" -D --defined-only "$gradcheck" | awk '{ print $NF }' | sed 's/@.*//' | grep -vE '^(__asan_|__ubsan_|__sanitizer_|__odr_asan|__tsan_|__gcov_|__llvm_)' | sort -u)
    if [ "$shown" = "$(declared include/mest/gradcheck.h)" ]; then pass; else fail "libmest-gradcheck exports $(echo "$shown" | tr '\n' ' ')"; fi
fi
[ "$passed" -gt 40 ] || fail "only $passed symbols were looked at"
finish
