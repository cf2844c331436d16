# SPDX-License-Identifier: Apache-2.0
# Debian packages, for quickstart.sh and test.sh; sourced. Installs only what is missing, as root or through sudo.
build_packages='gcc libc6-dev pkg-config meson ninja-build protobuf-c-compiler libprotobuf-c-dev libonnx-dev libxnnpack-dev
    libpthreadpool-dev libcpuinfo-dev libjpeg-dev libpng-dev zlib1g-dev libyaml-dev libcjson-dev libmicrohttpd-dev'
test_packages='check g++ libonnx-testdata qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross util-linux bsdutils curl'

# need PACKAGE...
need() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get > /dev/null; then
        echo "This is not Debian; going on without a check of the packages:$missing" >&2
        return 0
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || { echo "As root, please: apt-get install$missing" >&2; return 1; }
        as_root=sudo
    fi
    echo "Installing:$missing"
    # shellcheck disable=SC2086
    $as_root apt-get -q update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing
}
