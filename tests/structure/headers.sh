#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each public header alone, as C11 and as C++17, without a warning. headers.sh ROOT CC...
root=$1
. "$(dirname "$0")/lib.sh"
shift
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cxx=
for candidate in g++ clang++; do
    command -v $candidate > /dev/null && cxx=$candidate && break
done
for header in include/mest/*.h; do
    name=mest/$(basename "$header")
    printf '#include "%s"\n#include "%s"\nint main(void) { return 0; }\n' "$name" "$name" > "$work/t.c"
    cp "$work/t.c" "$work/t.cc"
    if "$@" -std=c11 -Wall -Wextra -Wpedantic -Werror -Wstrict-prototypes -Wno-unused-function -Iinclude -fsyntax-only "$work/t.c"; then
        pass
    else
        fail "$name does not compile alone in C11"
    fi
    if [ -z "$cxx" ]; then
        skip "$name in C++17: neither g++ nor clang++ is here"
    elif ! printf '#include <cstddef>\n' | $cxx -std=c++17 -x c++ -fsyntax-only - 2> /dev/null; then
        skip "$name in C++17: $cxx lacks its standard library"
    elif $cxx -std=c++17 -Wall -Wextra -Wpedantic -Werror -Wno-unused-function -Iinclude -fsyntax-only "$work/t.cc"; then
        pass
    else
        fail "$name does not compile alone in C++17"
    fi
    # meson installs exactly these headers
    if grep -qF "'$header'" meson.build; then pass; else fail "$header is not installed (install_headers in meson.build)"; fi
done
finish
