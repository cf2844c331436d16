#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Open Inference Protocol over curl: health, metadata, inference in JSON and in binary, versions, batches, shutdown.
serve=$1 digits=$2
. "$(dirname "$0")/serve_lib.sh"
model_folder '{"batch_delay_ms": 40}'
mkdir -p models/broken/1
echo nonsense > models/broken/1/model.onnx
begin

asks 200 "$url/v2/health/live"
asks 503 "$url/v2/health/ready" # one of two models
asks 200 "$url/v2"
says '"name":"mest-serve"'
says 'binary_tensor_data'
asks 200 "$url/v2/models"
says '"name":"digits","ready":true,"version":"1"'
says '"name":"broken","ready":false'
asks 503 "$url/v2/models/broken"
asks 503 -d '{}' "$url/v2/models/broken/infer"
asks 200 "$model"
says '"inputs":[{"name":"image","datatype":"FP32","shape":[-1,1,8,8]}]'
says '"outputs":[{"name":"logits","datatype":"FP32","shape":[-1,10]}]'
asks 200 "$model/ready"
asks 200 "$model/versions/1/ready"
asks 200 "$model/versions/1"
asks 404 "$model/versions/2/ready"
asks 404 "$model/versions/2"
asks 404 "$url/v2/models/other"
asks 404 "$url/nothing"
asks 405 -X DELETE "$model"
asks 405 "$model/infer"

# numbers in JSON, one and several samples
infer_body 1 1 > one.json
infer_body 1 3 > three.json
asks 200 -d @one.json "$model/infer"
says '"id":"r"'
says '"model_name":"digits","model_version":"1"'
says '"shape":[1,10]'
cp answer one
asks 200 -d @three.json "$model/infer"
says '"shape":[3,10]'
if close answer one; then pass; else fail "the first sample of three has another answer than alone"; fi
asks 200 -d @one.json "$model/versions/1/infer"
asks 404 -d @one.json "$model/versions/7/infer"

# the same values as binary data behind the JSON, both ways
header='{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}],"outputs":[{"name":"logits","parameters":{"binary_data":true}}]}'
printf %s "$header" > zero.bin
head -c 256 /dev/zero >> zero.bin
asks 200 -H "Inference-Header-Content-Length: ${#header}" --data-binary @zero.bin "$model/infer"
length=$(tr -d '\r' < head | sed -n 's/^Inference-Header-Content-Length: //p')
says '"parameters":{"binary_data_size":40}'
if [ "$(wc -c < answer)" = $((${length:-0} + 40)) ]; then pass; else fail "the binary answer has another length"; fi
binary=$(tail -c 40 answer | od -An -v -tf4 -w4 | awk '{ printf "%s%.6f", (NR > 1 ? "," : ""), $1 }')
zeros=$(awk 'BEGIN { for (i = 0; i < 64; i++) printf "%s0", i ? "," : "" }')
asks 200 -d "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,8,8],\"data\":[$zeros]}]}" "$model/infer"
numbers=$(grep -oE '"data":\[[^]]*' answer | sed 's/.*\[//' | tr , '\n' | awk '{ printf "%s%.6f", (NR > 1 ? "," : ""), $1 }')
if [ "$binary" = "$numbers" ]; then pass; else fail "binary $binary, JSON $numbers"; fi

# many at once: batches are formed, each answer is its own
i=1
jobs=
samples=$(metric mest_infer_samples_total) batches=$(metric mest_infer_batches_total)
while [ $i -le 24 ]; do
    infer_body $i $i > "in$i.json"
    i=$((i + 1))
done
i=1
while [ $i -le 24 ]; do
    curl -s -m 60 -d "@in$i.json" "$model/infer" > "out$i" &
    jobs="$jobs $!"
    i=$((i + 1))
done
for j in $jobs; do wait "$j"; done
asks 200 "$url/metrics"
says 'mest_infer_seconds_count{model="digits"}'
samples=$(($(metric mest_infer_samples_total) - samples)) batches=$(($(metric mest_infer_batches_total) - batches))
if [ "$samples" = 24 ] && [ "$batches" -lt 24 ]; then pass; else fail "$samples samples in $batches batches"; fi
i=1
while [ $i -le 24 ]; do
    asks 200 -d "@in$i.json" "$model/infer"
    if close answer "out$i"; then pass; else fail "answer $i was another in a batch"; fi
    i=$((i + 5))
done

# a deadline that has passed
asks 200 -d "$(sed 's/{"id":"r"/{"parameters":{"timeout":5000000}/' one.json)" "$model/infer"
asks 504 -d "$(sed 's/{"id":"r"/{"parameters":{"timeout":1}/' one.json)" "$model/infer"

# a request that is being answered when SIGTERM comes is answered
curl -s -m 60 -d @three.json "$model/infer" > last &
last=$!
sleep 0.003
ends
wait "$last"
if [ ! -s last ] || grep -qF '"shape":[3,10]' last; then pass; else fail "half an answer"; fi

# the newest version answers after a start, or the one that is named
mkdir models/digits/3
cp models/digits/1/model.onnx models/digits/3/
rm -r models/broken
begin
asks 200 "$url/v2/health/ready"
asks 200 -d @one.json "$model/infer"
says '"model_version":"3"'
ends INT
echo 1 > models/digits/current
begin
asks 200 -d @one.json "$model/infer"
says '"model_version":"1"'
ends
finish
