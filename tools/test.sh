#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds, runs every test. Arguments go to meson setup: tools/test.sh -Db_sanitize=address,undefined
# The last line is "N passed, N failed, N skipped"; the exit code is 0 only if none failed. BUILD names the folder, build-test by default.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh
# shellcheck disable=SC2086
need $build_packages $test_packages
build=${BUILD:-build-test}
if [ -f "$build/build.ninja" ]; then
    [ $# = 0 ] || meson configure "$build" "$@"
else
    meson setup "$build" "$@"
fi
ninja -C "$build"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ meson test -C "$build" --no-rebuild --print-errorlogs 2>&1 && echo 'meson: 0' || echo "meson: $?"; } | tee "$log" | grep -v '^meson: '
# count NAME: the number behind "NAME:" in meson's summary
count() { sed -n "s/^$1: *\([0-9][0-9]*\) *\$/\1/p" "$log" | tail -n 1 | grep . || echo 0; }
passed=$(($(count Ok) + $(count 'Expected Fail')))
failed=$(($(count Fail) + $(count 'Unexpected Pass') + $(count Timeout)))
skipped=$(count Skipped)
status=$(sed -n 's/^meson: //p' "$log" | tail -n 1)
# A failure that is in no count (meson itself broke off, or no test ran) must not look like success.
if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ "$passed" = 0 ]; }; then failed=1; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
