#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Text rules of the tree: licence line, no paths of a developer's machine, file names, and what the library's code must not call.
root=$1
. "$(dirname "$0")/lib.sh"

# Paths that exist on one machine only. This file names them, so it is left out.
files | grep -v -e '^tests/structure/words.sh$' -e '^tests/fuzz/corpus/' | grep -vE '\.(onnx|gz|png|jpg|npy|pb|bin)$' > "${TMPDIR:-/tmp}/mest-words.$$"
trap 'rm -f "${TMPDIR:-/tmp}/mest-words.$$"' EXIT
list=${TMPDIR:-/tmp}/mest-words.$$
passed=$(wc -l < "$list")
for file in $(tr '\n' '\0' < "$list" | xargs -0 grep -lE '/home/[a-z]|/root/'); do
    fail "$file names a path of one machine: $(grep -nE '/home/[a-z]|/root/' "$file" | head -n 1)"
done
for file in $(tr '\n' '\0' < "$list" | xargs -0 grep -lE '[[:blank:]]+$'); do
    fail "$file: blanks at the end of line $(grep -nE '[[:blank:]]+$' "$file" | head -n 1 | cut -d: -f1)"
done
while IFS= read -r file; do
    case $file in
    *.c | *.h | *.sh | *.py)
        if head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then pass; else fail "$file does not begin with the SPDX line"; fi ;;
    esac
done < "$list"

# The library allocates through runtime/alloc.c, never prints, never ends the process.
for file in $(files runtime sparse ops importers schedulers | grep '\.[ch]$'); do
    code=$(sed -e 's|//.*||' -e 's|"[^"]*"||g' "$file" | awk '
        { line = $0; out = ""
          while (length(line)) {
              if (inside) { i = index(line, "*/"); if (!i) { line = ""; break } line = substr(line, i + 2); inside = 0 }
              else { i = index(line, "/*"); if (!i) { out = out line; line = "" } else { out = out substr(line, 1, i - 1); line = substr(line, i + 2); inside = 1 } }
          }
          print out }')
    bad=$(echo "$code" | grep -oE '(^|[^a-zA-Z0-9_.>])(malloc|calloc|realloc|free|strdup|asprintf|posix_memalign|aligned_alloc|printf|puts|perror|abort|exit|_exit|rand|random|drand48) *\(' | tr -d ' (' | sort -u | tr '\n' ' ')
    [ "$file" = runtime/alloc.c ] && bad=$(echo "$bad" | sed -E 's/(posix_memalign|aligned_alloc|free) ?//g')
    if [ -z "$bad" ]; then pass; else fail "$file calls $bad"; fi
done
finish
