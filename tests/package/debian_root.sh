#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Debian packages in a Debian that has nothing else: installs them with apt into a fresh root and does there what installed.sh does (examples with
# pkg-config and CMake, what they compute, manual pages, the Python binding). As root; needs mmdebstrap and a mirror. Takes minutes: run before a release.
#
#   dpkg-buildpackage -us -uc && tests/package/debian_root.sh FOLDER_OF_THE_DEBS [ROOT]
#
# ROOT is kept and used again; without it a temporary one is made. MIRROR: a line for sources.list.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
debs=$(cd "$1" && pwd)
root=${2:-}
if [ -z "$root" ]; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
fi
if [ ! -x "$root/usr/bin/apt-get" ]; then
    mmdebstrap --variant=minbase --mode=root bookworm "$root" "${MIRROR:-deb http://deb.debian.org/debian bookworm main}"
fi
rm -rf "$root/check"
mkdir -p "$root/check/debs" "$root/check/source/tests"
cp "$debs"/*.deb "$root/check/debs"
cp "$top/tests/package/installed.sh" "$root/check"
cp -r "$top/python" "$root/check/source"
cp -r "$top/tests/abi" "$root/check/source/tests"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2> /dev/null || true
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get -q update
inside sh -c 'apt-get -q -y --no-install-recommends install /check/debs/*.deb gcc libc6-dev cmake make pkg-config man-db groff-base curl \
    python3-numpy python3-pytest python3-pip python3-setuptools python3-wheel'
# nothing of a package may depend on the tree that it was built in
inside sh -c 'ldd /usr/bin/mest-run /usr/bin/mest-serve'
inside env MEST_PREFIX=/usr sh /check/installed.sh /check/source /check
# and they go away again
inside sh -c 'apt-get -q -y purge mest-tools mest-doc libmest-dev libmest1 > /dev/null && ! find / -xdev -path /check -prune -o "(" -name "mest*" -o -name "libmest*" ")" -print | grep .'
