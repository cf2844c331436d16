#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's first two commands name scripts that exist, links lead somewhere, and documents speak of files that exist.
root=$1
. "$(dirname "$0")/lib.sh"

# block N: the N-th fenced block of the README
block() { awk -v n="$1" '/^```/ { if (inside) { inside = 0 } else { inside = 1; k++ } next } inside && k == n' README.md; }
for n in 1 2; do
    script=$(block $n | grep -oE 'tools/[a-z_]+\.sh' | head -n 1)
    if [ -n "$script" ] && [ -x "$script" ]; then pass; else fail "README.md: fenced block $n names no script of tools/ that can be run: $(block $n | head -n 1)"; fi
done
for script in tools/*.sh; do
    if sh -n "$script"; then pass; else fail "$script is no shell script"; fi
done
for file in README.md LICENSE NOTICE CONTRIBUTING.md CHANGELOG.md docs/architecture.md docs/api.md docs/cli.md docs/methods.md; do
    if [ -s "$file" ]; then pass; else fail "no $file"; fi
done
# Relative links of all documents
for file in $(files | grep '\.md$'); do
    for target in $(grep -oE '\]\([^)# ]+' "$file" | sed 's/^](//' | grep -vE '^[a-z]+:'); do
        if [ -e "$(dirname "$file")/$target" ]; then pass; else fail "$file links to $target, which does not exist"; fi
    done
done
# Paths in backquotes: `runtime/plan.c`, `tests/kern`. Names with a placeholder and files made by a build are not meant.
for file in README.md CONTRIBUTING.md $(files docs | grep '\.md$'); do
    for target in $(grep -oE '`(runtime|ops|sparse|importers|schedulers|include|tools|tests|bench|docs|examples|cross)/[A-Za-z0-9_./-]+`' "$file" | tr -d '`' | sort -u); do
        if [ -e "$target" ] || grep -qF "<!-- example: $target -->" "$file"; then pass; else fail "$file speaks of $target, which does not exist"; fi
    done
done
# The version is the same everywhere it is written.
version=$(sed -n "s/.*version: '\([0-9.]*\)', license.*/\1/p" meson.build)
header=$(sed -n 's/^#define MEST_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)$/\2/p' include/mest/base.h | tr '\n' . | sed 's/\.$//')
if [ "$version" = "$header" ]; then pass; else fail "version $version in meson.build, $header in mest/base.h"; fi
if grep -q "^## \[$version\]" CHANGELOG.md; then pass; else fail "CHANGELOG.md has no entry of $version"; fi
finish
