#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From an installed tree, without the source: examples by pkg-config and by CMake, the manual page, the Python binding. The installed tree is
# moved before it is used, nothing of the source is named afterwards. installed.sh SOURCE BUILD
#   MEST_PREFIX   where it is installed already (by packages, see debian_root.sh): SOURCE needs python/ and tests/abi/ only, BUILD is not looked at
#   MEST_PYTHON   the Python whose numpy, pytest and pip are used (python3); without them the binding is skipped
source=$(cd "$1" && pwd) build=$(cd "$2" && pwd) installed=${MEST_PREFIX:-}
passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAILED: $*"; tail -n 5 log 2> /dev/null | sed 's/^/    /'; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; exit $?; }
ok() { if "$@" > log 2>&1; then pass; else fail "$*"; fi; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
if [ -n "$installed" ]; then
    prefix=$installed
else
    DESTDIR=$work/root meson install -C "$build" --no-rebuild --quiet > log 2>&1 || { fail 'meson install'; finish; }
    prefix=$(dirname "$(dirname "$(find "$work/root" -name mest-run -path '*/bin/*')")")
    mv "$prefix" "$work/mest" && rm -rf "$work/root"
    prefix=$work/mest
fi
python_source=$source/python layout=$source/tests/abi/layout.txt
cp -r "$python_source" "$work/python" 2> /dev/null
cp "$layout" "$(dirname "$layout")/prototypes.txt" "$work"
unset source

# ---- layout ----
libdir=$(dirname "$(find "$prefix" -name libmest.so | head -n 1)")
page=share/man/man1/mest-run.1
[ -e "$prefix/$page" ] || page=$page.gz # Debian's way
for file in bin/mest-run include/mest/base.h include/mest/data.h include/mest/model.h include/mest/train.h include/mest/check.h include/mest/serve.h \
    include/mest/plugin.h include/mest/plugin_options.h $page share/doc/mest/README.md share/doc/mest/docs/api.md \
    share/doc/mest/examples/infer.c share/doc/mest/examples/digits/digits.csv.gz; do
    if [ -s "$prefix/$file" ]; then pass; else fail "not installed: $file"; fi
done
if [ -e "$prefix/bin/mest-serve" ]; then # built where libmicrohttpd is
    if [ -s "$prefix/$(echo $page | sed 's/run/serve/')" ]; then pass; else fail 'not installed: share/man/man1/mest-serve.1'; fi
    ok env LD_LIBRARY_PATH="$libdir" "$prefix/bin/mest-serve" --version
fi
# static libraries, tests and internal headers are not for others
[ -n "$installed" ] || strays=$(cd "$prefix" && find . -type f | grep -vE '^\./(bin/mest-[a-z]+|include/mest/[a-z_]+\.h|share/(doc/mest|man|mest)/.*|lib/.*(libmest(-gradcheck)?\.(so[.0-9]*|a)|pkgconfig/mest(-gradcheck)?\.pc|cmake/Mest/MestConfig(Version)?\.cmake))$')
if [ -z "${strays:-}" ]; then pass; else fail "installed as well: $strays"; fi
if [ -z "$installed" ] && grep -rqF "$build" "$prefix/include" "$libdir/pkgconfig" "$libdir/cmake"; then fail 'the build folder is named in installed files'; else pass; fi

# ---- pkg-config ----
export PKG_CONFIG_PATH="$libdir/pkgconfig" LD_LIBRARY_PATH="$libdir"
examples=$prefix/share/doc/mest/examples
mkdir bin
if [ "$(pkg-config --modversion mest)" = "$("$prefix/bin/mest-run" --version | sed 's/[^0-9]*\([0-9.]*[0-9]\).*/\1/;q')" ]; then pass; else fail 'pkg-config and mest-run disagree about the version'; fi
flags=$(pkg-config "--define-variable=prefix=$prefix" --cflags --libs mest) || fail 'pkg-config does not know mest'
for name in infer finetune online_learning custom_data; do
    # shellcheck disable=SC2086
    ok cc -std=c11 -Wall -Wextra -Wpedantic -Werror -O1 "$examples/$name.c" -o bin/$name $flags -lm
done

# ---- the examples do what they say ----
digits=$examples/digits/digits.csv.gz model=$examples/digits/digits_cnn.onnx
above() { awk "BEGIN { exit !(${1:-0} > $2) }"; } # NUMBER LIMIT
if bin/finetune "$model" "csv:$digits" 16 tuned.onnx 6 > out 2> log; then pass; else fail finetune; fi
if above "$(sed -n 's/.*, \([0-9.]*\) % after.*/\1/p' out)" 95; then pass; else fail "finetune: $(cat out)"; fi
if [ -e tuned.onnx.ckpt ] || [ -e tuned.onnx.ckpt.prev ]; then fail 'finetune leaves its checkpoint'; else pass; fi
# stopped and continued: the same bytes
bin/finetune "$model" "csv:$digits" 16 again.onnx 6 > out 2> log &
stopped=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e again.onnx.ckpt ] && break || sleep 0.2; done
kill -INT $stopped 2> /dev/null
wait $stopped
[ -e again.onnx ] || ok bin/finetune "$model" "csv:$digits" 16 again.onnx 6
if cmp -s tuned.onnx again.onnx; then pass; else fail 'finetune: stopped and continued, another model'; fi
if bin/infer tuned.onnx "csv:$digits" 16 > out 2> log; then pass; else fail infer; fi
gzip -dc "$digits" > digits.csv
right=$(cut -d, -f65 digits.csv | paste - out | awk -F'\t' '$1 == $3 { n++ } END { print 100 * n / NR }')
if above "$right" 95 && [ "$(wc -l < out)" = 1797 ]; then pass; else fail "infer: $right % right"; fi
if bin/infer nowhere.onnx "csv:$digits" 16 > out 2> log; then fail 'infer: a model that is not there'; else pass; fi
if grep -q 'nowhere.onnx' log; then pass; else fail 'infer does not name the file'; fi
if bin/online_learning "$model" "csv:$digits" 16 online.onnx > out 2> log; then pass; else fail online_learning; fi
first=$(sed -n '1s/.*: *\([0-9.]*\) %.*/\1/p' out) last=$(sed -n '$s/.*: *\([0-9.]*\) %.*/\1/p' out)
if above "$last" 60 && above "$last" "$first" && [ "$(grep -c 'version' out)" -ge 6 ]; then pass; else fail "online_learning: $first %, then $last %"; fi
if bin/custom_data "$model" digits.csv custom.onnx > out 2> log; then pass; else fail custom_data; fi
if above "$(sed 's/ %.*//' out)" 95; then pass; else fail "custom_data: $(cat out)"; fi
sed 's/,16,/,17,/' digits.csv > bad.csv
if bin/custom_data "$model" bad.csv bad.onnx > out 2> log || [ -e bad.onnx ]; then fail 'custom_data: damaged digits'; else pass; fi
for file in tuned online custom; do ok "$prefix/bin/mest-run" $file.onnx --info; done

# ---- CMake ----
if command -v cmake > /dev/null; then
    ok cmake -S "$examples" -B built -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS='-Wall -Wextra -Werror'
    ok cmake --build built
    if built/infer tuned.onnx "csv:$digits" 16 > out 2> log && [ "$(wc -l < out)" = 1797 ]; then pass; else fail 'infer, built by CMake'; fi
    mkdir later
    for line in 'find_package(Mest 99 REQUIRED)' 'find_package(Mest REQUIRED COMPONENTS nonsense)'; do
        printf 'cmake_minimum_required(VERSION 3.13)\nproject(later C)\n%s\n' "$line" > later/CMakeLists.txt
        rm -rf later/b
        if cmake -S later -B later/b -DCMAKE_PREFIX_PATH="$prefix" > log 2>&1; then fail "accepted: $line"; else pass; fi
    done
else
    skip 'no cmake'
fi

# ---- the manual page ----
if command -v man > /dev/null && command -v groff > /dev/null; then
    LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -l "$prefix/$page" > page 2> log
    if [ -s log ]; then fail 'the manual page has faults'; else pass; fi
else
    gzip -dcf < "$prefix/$page" > page
    skip 'no man or no groff: the page is not formatted'
fi
"$prefix/bin/mest-run" --help-all > help
for option in $(grep -oE '^ *(-[a-zA-Z], )?--[a-z0-9-]+' help | sed 's/.*--/--/' | sort -u); do
    if sed 's/\\-/-/g' page | grep -qF -e "$option"; then pass; else fail "the manual page lacks $option"; fi
done

# ---- Python ----
fit() { "$1" -c 'import setuptools, wheel, numpy, pytest, pip' 2> /dev/null; }
python=${MEST_PYTHON:-python3}
fit "$python" || [ -n "${MEST_PYTHON:-}" ] || python=/usr/bin/python3 # Debian's, where another one comes first
if ! fit "$python"; then
    skip "the Python binding: $python lacks numpy, pytest, pip, setuptools or wheel"
else
    ok "$python" -m pip install --quiet --no-deps --no-build-isolation --no-index --target site ./python
    mkdir away && cp -r python/tests away/tests && rm -rf python
    MEST_LIBRARY=$libdir/libmest.so PYTHONPATH=$work/site MEST_DIGITS=$examples/digits MEST_LAYOUT=$work/layout.txt PYTHONDONTWRITEBYTECODE=1 \
        "$python" -m pytest -q -p no:cacheprovider -W ignore away/tests > log 2>&1
    status=$?
    tail -n 1 log
    if [ $status = 0 ]; then pass; else fail "the binding's tests"; grep -E '^(E |FAILED)' log | head -n 20; fi
fi
finish
