#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clients of the Open Inference Protocol: one with Python's own library alone, and one that others wrote: tritonclient[http], of the Python that
# MEST_OIP_PYTHON names (python3), where it is installed.
serve=$1 digits=$2 python=${MEST_OIP_PYTHON:-python3}
tests=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/serve_lib.sh"
command -v "$python" > /dev/null || { echo "skipped: no $python"; exit 77; }
model_folder
begin
for client in oip_plain.py oip_client.py; do
    "$python" "$tests/$client" "127.0.0.1:$(cat port)" "$digits/digits.csv.gz" > log 2>&1
    result=$?
    case $result in
    0) pass ;;
    77) skip "$client: $(tail -n 1 log)" ;;
    *) fail "$client: $(tail -n 5 log)" ;;
    esac
done
ends
finish
