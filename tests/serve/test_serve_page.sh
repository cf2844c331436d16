#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The page: served without a token, with a policy that lets nothing else in; drawn on, taught and trained in a headless Chromium.
serve=$1 digits=$2
page_test=$(cd "$(dirname "$0")" && pwd)/page_test.py
. "$(dirname "$0")/serve_lib.sh"
model_folder '{"lr": 0.05, "round_steps": 8, "duty": 1, "nice": 0, "batch": 16, "batch_norm": "train", "batch_delay_ms": 0}'
begin
asks 200 "$url/"
says '<title>mest-serve</title>'
lacks 'http://127'
if grep -qi "^content-security-policy: default-src 'none'" head && grep -qi '^content-type: text/html' head; then pass; else fail 'headers of the page'; fi
# nothing is loaded from elsewhere
if grep -oE '(src|href)="[^"]*"' answer | grep -v 'href="data:,"' | grep -q .; then fail 'the page loads something'; else pass; fi
if command -v python3 > /dev/null; then
    python3 "$page_test" "$url/" > log 2>&1
    code=$?
    case $code in
    0) pass ;;
    77) skip "$(tail -n 1 log)" ;;
    *) fail "the page in Chromium: $(cat log)" ;;
    esac
else
    skip 'no python3 to drive Chromium'
fi
ends
finish
