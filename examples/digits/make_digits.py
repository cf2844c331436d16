#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes digits.csv.gz (1,797 handwritten digits, 8x8) from the copy that scikit-learn ships.

Debian: apt install python3-sklearn. The file is taken as it is; a row is 64 pixels 0..16 (rows from the top) and the digit.
usage: make_digits.py [OUTPUT]      default: digits.csv.gz beside this script
"""
import gzip
import hashlib
import pathlib
import sys

CONTENT_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"


def main():
    import sklearn.datasets

    shipped = pathlib.Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    packed = shipped.read_bytes()
    content = gzip.decompress(packed)
    found = hashlib.sha256(content).hexdigest()
    if found != CONTENT_SHA256:
        sys.exit(f"{shipped}: other content than expected (sha256 {found})")
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "digits.csv.gz"
    output.write_bytes(packed)
    print(f"{output}: {len(content.splitlines())} digits, {len(packed)} bytes")


if __name__ == "__main__":
    main()
