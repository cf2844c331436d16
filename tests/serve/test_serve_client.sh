#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A client of the Open Inference Protocol that others wrote: tritonclient[http], of the Python that MEST_OIP_PYTHON names (python3); skipped without it.
serve=$1 digits=$2 python=${MEST_OIP_PYTHON:-python3}
client=$(cd "$(dirname "$0")" && pwd)/oip_client.py
. "$(dirname "$0")/serve_lib.sh"
command -v "$python" > /dev/null || { echo "skipped: no $python"; exit 77; }
model_folder
begin
"$python" "$client" "127.0.0.1:$(cat port)" "$digits/digits.csv.gz" > log 2>&1
result=$?
ends
[ "$result" != 77 ] || { tail -n 1 log; exit 77; }
if [ "$result" = 0 ]; then pass; else fail "the client: $(tail -n 5 log)"; fi
finish
