#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mest-serve as a client of the Open Inference Protocol v2 sees it that has nothing but Python's own library: oip_plain.py HOST:PORT DIGITS.csv.gz

Every answer is held against the schema of the protocol (kserve.github.io, "Open Inference Protocol Specification": required members, their types, nothing that
the schema does not know), every tensor against its shape; connections are kept and used again, which a wrong length would show at once.
"""
import array
import csv
import gzip
import http.client
import json
import sys
import threading

NUMBER, TEXT, ANY = (int, float), (str,), (object,)
# name: (types, required)
METADATA = {"name": (TEXT, True), "datatype": (TEXT, True), "shape": ([int], True)}
PARAMETERS = {"binary_data": ((bool,), False), "binary_data_size": ((int,), False)}
TENSOR = {"name": (TEXT, True), "datatype": (TEXT, True), "shape": ([int], True), "data": ([NUMBER], False), "parameters": (PARAMETERS, False)}
SERVER = {"name": (TEXT, True), "version": (TEXT, True), "extensions": ([str], True)}
MODEL = {"name": (TEXT, True), "versions": ([str], False), "platform": (TEXT, True), "inputs": ([METADATA], True), "outputs": ([METADATA], True)}
ANSWER = {"model_name": (TEXT, True), "model_version": (TEXT, False), "id": (TEXT, False), "parameters": ({}, False), "outputs": ([TENSOR], True)}
ERROR = {"error": (TEXT, True)}


def fits(value, kind, where):
    if isinstance(kind, dict):
        assert isinstance(value, dict), f"{where} is no object"
        for name, (inner, required) in kind.items():
            assert not required or name in value, f"{where} has no '{name}'"
        for name, v in value.items():
            assert name in kind, f"{where} has '{name}', which the protocol does not know"
            fits(v, kind[name][0], f"{where}.{name}")
    elif isinstance(kind, list):
        assert isinstance(value, list), f"{where} is no array"
        for i, v in enumerate(value):
            fits(v, kind[0], f"{where}[{i}]")
    else:
        assert isinstance(value, kind) and (kind == (bool,) or not isinstance(value, bool)), f"{where}: {value!r}"


class Client:
    """One connection, kept."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def call(self, method, path, schema, status=200, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        r = self.connection.getresponse()
        data = r.read()
        assert r.status == status, f"{path}: {r.status} {data[:200]}"
        if schema is None:
            return None, b""
        head = int(r.getheader("Inference-Header-Content-Length", len(data)))
        json_type = "application/octet-stream" if head < len(data) else "application/json"
        assert r.getheader("Content-Type", "").split(";")[0] == json_type, f"{path}: Content-Type {r.getheader('Content-Type')}"
        value = json.loads(data[:head])
        fits(value, schema, path)
        return value, data[head:]

    def infer(self, rows, binary_in=False, binary_out=False, path="/v2/models/digits/infer", **more):
        values = array.array("f", (v for row in rows for v in row))
        given = {"name": "image", "datatype": "FP32", "shape": [len(rows), 1, 8, 8]}
        raw = b""
        if binary_in:
            raw = values.tobytes()
            given["parameters"] = {"binary_data_size": len(raw)}
        else:
            given["data"] = values.tolist()
        text = json.dumps({"inputs": [given], "outputs": [{"name": "logits", "parameters": {"binary_data": binary_out}}], **more}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))} if binary_in else {"Content-Type": "application/json"}
        answer, tail = self.call("POST", path, ANSWER, body=text + raw, headers=headers)
        out, = answer["outputs"]
        assert (out["name"], out["datatype"], out["shape"]) == ("logits", "FP32", [len(rows), 10]), out
        if binary_out:
            assert "data" not in out and out["parameters"]["binary_data_size"] == len(tail) == 40 * len(rows)
            return answer, array.array("f", tail).tolist()
        assert not tail and len(out["data"]) == 10 * len(rows)
        return answer, out["data"]


def near(a, b):
    assert len(a) == len(b) and all(abs(x - y) <= 1e-4 for x, y in zip(a, b)), "another answer"


def main(address, digits):
    with gzip.open(digits, "rt") as f:
        rows = [[float(v) / 16 for v in row[:64]] for row, _ in zip(csv.reader(f), range(20))]
    c = Client(address)
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"):
        c.call("GET", path, None)
    server, _ = c.call("GET", "/v2", SERVER)
    assert server["name"] == "mest-serve" and "binary_tensor_data" in server["extensions"]
    for path in ("/v2/models/digits", "/v2/models/digits/versions/1"):
        model, _ = c.call("GET", path, MODEL)
        assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}], model
    _, right = c.infer(rows)
    for i in (False, True):
        for o in (False, True):
            near(c.infer(rows, i, o)[1], right)
    answer, _ = c.infer(rows[:1], True, True, path="/v2/models/digits/versions/1/infer", id="seven", parameters={"timeout": 5000000})
    assert answer["id"] == "seven" and answer["model_version"] == "1" and answer["model_name"] == "digits"
    # refusals have the protocol's form, and the connection goes on
    c.call("GET", "/v2/models/none", ERROR, 404)
    c.call("POST", "/v2/models/digits/infer", ERROR, 400, b"{")
    c.call("POST", "/v2/models/digits/infer", ERROR, 400, json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": rows[0]}]}))
    failed = []

    def ask(k):
        try:
            own = Client(address)
            for turn in range(5):
                near(own.infer(rows[k:k + 1], turn % 2 == 0, turn % 3 == 0)[1], right[10 * k:10 * k + 10])
        except Exception as e:  # of a thread: told by the main one
            failed.append(f"client {k}: {e!r}")
    threads = [threading.Thread(target=ask, args=(k,)) for k in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[0]
    print("ok")


main(*sys.argv[1:])
