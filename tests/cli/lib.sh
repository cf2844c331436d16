# SPDX-License-Identifier: Apache-2.0
# Helpers of the command line's tests; sourced with the program to test in $run. Works in a temporary folder of its own.
passed=0 failed=0 skipped=0
# meson gives paths relative to its build folder
absolute() { case $1 in /* | '') echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
run=$(absolute "$run") json_lines=$(absolute "$json_lines") docs=$(absolute "${docs:-}") tables=$(absolute "${tables:-}")
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
printf FAKE > m.onnx
unset FAKE_NORMALISATION FAKE_FAIL FAKE_STEP_MS COLUMNS NO_COLOR
FAKE_ECHO=$work/echo
export FAKE_ECHO

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $*"
    sed 's/^/    stdout: /' out 2>/dev/null | head -n 5
    sed 's/^/    stderr: /' err 2>/dev/null | head -n 5
}
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

# gives CODE ARGUMENTS...: runs mest-run, compares the exit code; stdout is in ./out, stderr in ./err, what the library got in ./echo.
gives() {
    want=$1
    shift
    : > echo
    "$run" "$@" > out 2> err < /dev/null
    code=$?
    if [ "$code" = "$want" ]; then pass; else fail "exit code $code instead of $want: mest-run $*"; fi
}
# has FILE TEXT, lacks FILE TEXT: a fixed string
has() { if grep -qF -e "$2" "$1"; then pass; else fail "'$2' is not in $1 ($(head -c 300 "$1" | tr '\n' '|'))"; fi; }
lacks() { if grep -qF -e "$2" "$1"; then fail "'$2' is in $1"; else pass; fi; }
# says CODE TEXT ARGUMENTS...: fails with that code, one line "mest-run: ..." that contains TEXT, and nothing on stdout
says() {
    text=$2 want=$1
    shift 2
    gives "$want" "$@"
    has err "$text"
    if [ "$(grep -c '^mest-run: ' err)" = 1 ] && [ ! -s out ]; then pass; else fail "not one message: mest-run $*"; fi
}
is_file() { if [ -s "$1" ]; then pass; else fail "no file $1"; fi; }
is_gone() { if [ -e "$1" ]; then fail "$1 exists"; else pass; fi; }
# json FILE: each line is an object
json() { if "$json_lines" < "$1" > /dev/null; then pass; else fail "$1 is not JSON lines"; fi; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
# For tests with the real library, which set `examples`: $model and $digits are the bundled network and its samples, or the test is skipped.
bundled_digits() {
    model=$examples/digits_cnn.onnx digits=$examples/digits.csv.gz
    if [ ! -f "$model" ] || [ ! -f "$digits" ]; then
        skip "no bundled digits in $examples"
        finish
        exit 77
    fi
    unset FAKE_ECHO
}
