#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# debian/ against the rest of the tree: the symbols are those of the recorded interface, the version is meson's, every package has its files.
root=$1
. "$(dirname "$0")/../structure/lib.sh"
symbols=$(sed -n 's/^ \(mest_[a-z0-9_]*\)@Base .*/\1/p' debian/libmest1.symbols | LC_ALL=C sort)
functions=$(sed 's/(.*//; s/.*[ *]//' tests/abi/prototypes.txt | LC_ALL=C sort)
if [ "$symbols" = "$functions" ]; then
    pass
else
    for f in $functions; do echo "$symbols" | grep -qx "$f" || fail "debian/libmest1.symbols lacks $f"; done
    for f in $symbols; do echo "$functions" | grep -qx "$f" || fail "debian/libmest1.symbols has $f, which tests/abi/prototypes.txt has not"; done
fi
version=$(sed -n "s/.*version: '\([0-9.]*\)', license.*/\1/p" meson.build)
if head -n 1 debian/changelog | grep -qF "mest ($version"; then pass; else fail "debian/changelog does not begin with version $version"; fi
for package in $(sed -n 's/^Package: //p' debian/control); do
    if [ -s "debian/$package.install" ]; then pass; else fail "no debian/$package.install"; fi
done
# What is needed to build is what tools/packages.sh installs.
. tools/packages.sh
for package in $build_packages; do
    case $package in gcc | libc6-dev | ninja-build) continue ;; esac
    if sed -n '/^Build-Depends/,/^Standards/p' debian/control | grep -qE "[ ,]$package( |,|\$)"; then pass; else fail "debian/control does not build-depend on $package"; fi
done
finish
