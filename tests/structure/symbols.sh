#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the library exports, and that it exports all its public headers declare. symbols.sh ROOT LIBMEST.SO [NM]
root=$1 library=$2 nm=${3:-nm}
case $library in /*) ;; *) library=$PWD/$library ;; esac
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
for name in $(sed -n 's/.*MEST_API [a-z0-9_ *]*[ *]\(mest_[a-z0-9_]*\)(.*/\1/p' include/mest/*.h | sort -u); do
    [ "$name" = mest_scheduler_entry ] && continue
    if echo "$exported" | grep -qx "$name"; then pass; else fail "declared in include/mest, not exported: $name"; fi
done
[ "$passed" -gt 40 ] || fail "only $passed symbols were looked at"
finish
