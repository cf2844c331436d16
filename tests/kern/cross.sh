#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The kernels built for aarch64 with Debian's cross compiler, their tests under emulation: cross.sh ROOT BUILD
# The build folder stays, so that a second run compiles what changed.
root=$1 build=$2
. "$root/tests/structure/lib.sh"
set -e
[ -f "$build/build.ninja" ] || meson setup "$build" "$root/tests/kern/alone" --cross-file "$root/cross/aarch64-linux.ini" > /dev/null
ninja -C "$build" -j 2 > "$build/ninja.txt" || { tail -n 30 "$build/ninja.txt"; exit 1; }
set +e
runs() { # PROGRAM ARGUMENTS..
    name=$1
    shift
    qemu-aarch64-static -L /usr/aarch64-linux-gnu "$build/$name" "$@" > "$build/$name.txt" 2>&1
    code=$?
    echo "$name: $(tail -n 1 "$build/$name.txt")"
    if [ $code = 0 ]; then pass; else fail "$name: $(grep FAIL "$build/$name.txt" | head -n 5)"; fi
}
runs kern_float 1 220
runs fused_float 1 100
runs attention_float
runs recurrent_float
# and it was NEON that ran
if grep -q '_neon: this processor lacks' "$build/kern_float.txt"; then fail "kern_float: $(grep '_neon: this' "$build/kern_float.txt" | head -n 3)"; else pass; fi
if grep -q '^fused_conv_neon: [1-9]' "$build/fused_float.txt"; then pass; else fail "fused_float ran no kernel for NEON"; fi
finish
