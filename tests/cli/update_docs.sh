#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes the tables of options into docs/cli.md: update_docs.sh BUILD_DIR/tests/cli/option-tables docs/cli.md
set -eu
tables=$1 docs=$2
new=$(mktemp)
sed -n '1,/^<!-- options: begin -->$/p' "$docs" > "$new"
"$tables" >> "$new"
sed -n '/^<!-- options: end -->$/,$p' "$docs" >> "$new"
cat "$new" > "$docs"
rm -f "$new"
