#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/cli.md holds the tables of options as they are, mentions only options that exist, and explains every exit code.
run=$1 json_lines=$2 docs=$3 tables=$4
. "$(dirname "$0")/lib.sh"
if [ ! -f "$docs" ]; then
    fail "no $docs"
    finish
    exit 1
fi
"$tables" > tables
if [ "$(grep -c '^| `' tables)" -gt 80 ]; then pass; else fail 'fewer than 80 options'; fi
while IFS= read -r row; do
    if [ -z "$row" ] || grep -qxF -e "$row" "$docs"; then pass; else fail "docs/cli.md lacks this line (see update_docs.sh): $row"; fi
done < tables
# every option of the table is in --help-all, and the other way round
gives 0 --help-all
sed -n 's/^  *\(-[a-zA-Z], \)\{0,1\}\(--[a-z-]*\)\( .*\)\{0,1\}$/\2/p' out | sort -u > shown
sed -n 's/^| `\(-[a-zA-Z], \)\{0,1\}\(--[a-z-]*\).*/\2/p' tables | sort -u > listed
if cmp -s shown listed; then pass; else fail "--help-all and the table differ: $(diff shown listed | tr '\n' ' ')"; fi
grep -o -e '--[a-z][a-z-]*' "$docs" | sort -u > mentioned
while read -r name; do
    if grep -qxF -e "$name" listed; then pass; else fail "docs/cli.md mentions $name, which does not exist"; fi
done < mentioned
for code in 0 1 2 3 4 5 6 7 8 130 143; do
    if grep -q "^| $code |" "$docs"; then pass; else fail "exit code $code is not in docs/cli.md"; fi
done
finish
