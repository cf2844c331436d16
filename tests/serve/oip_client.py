#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mest-serve through a client of the Open Inference Protocol that others wrote: oip_client.py HOST:PORT DIGITS.csv.gz

Needs tritonclient[http] and numpy; exit code 77 without them.
"""
import gzip
import sys

try:
    import numpy as np
    import tritonclient.http as client
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)

rows = np.loadtxt(gzip.open(sys.argv[2]), delimiter=",", max_rows=20)
images = (rows[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
c = client.InferenceServerClient(sys.argv[1], concurrency=8)
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("digits") and c.is_model_ready("digits", "1")
assert not c.is_model_ready("digits", "9")
server = c.get_server_metadata()
assert server["name"] == "mest-serve" and "binary_tensor_data" in server["extensions"], server
meta = c.get_model_metadata("digits")
assert meta["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}], meta


def ask(x, binary_in, binary_out, **more):
    given = client.InferInput("image", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary_in)
    return c.infer("digits", [given], outputs=[client.InferRequestedOutput("logits", binary_data=binary_out)], **more)


results = {(i, o): ask(images, i, o).as_numpy("logits") for i in (False, True) for o in (False, True)}
for r in results.values():
    assert r.shape == (20, 10) and r.dtype == np.float32
    assert np.allclose(r, results[True, True], atol=1e-6)
r = ask(images[:1], True, True, model_version="1", request_id="seven", timeout=5000000)
assert r.get_response()["id"] == "seven" and r.get_response()["model_version"] == "1"
pending = []
for k in range(20):
    given = client.InferInput("image", [1, 1, 8, 8], "FP32")
    given.set_data_from_numpy(images[k:k + 1])
    pending.append(c.async_infer("digits", [given]))
for k, p in enumerate(pending):
    assert np.allclose(p.get_result().as_numpy("logits")[0], results[True, True][k], atol=1e-4)
try:
    ask(images.reshape(-1, 64), True, True)
    raise SystemExit("a wrong shape was taken")
except client.InferenceServerException as e:
    assert "shape" in e.message(), e.message()
print("ok")
