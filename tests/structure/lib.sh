# SPDX-License-Identifier: Apache-2.0
# Helpers of the structure tests; sourced with the source tree in $root.
passed=0 failed=0 skipped=0
cd "$root" || exit 1
pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAILED: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
# Files of the tree, without build folders: what git knows, or all there is in an unpacked archive.
files() {
    if git rev-parse --is-inside-work-tree > /dev/null 2>&1; then
        git ls-files --cached "$@" | while IFS= read -r f; do [ -f "$f" ] && echo "$f"; done
    else
        find . -type f -not -path './build*' -not -path './.git/*' | sed 's|^\./||' | {
            [ $# = 0 ] && cat || grep -E "^($(echo "$*" | tr ' ' '|'))"
        }
    fi
}
