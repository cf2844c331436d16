#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the node cases of the installed onnx package, which are newer than the system's test data, in its folder form. Usage:
onnx_cases.py FOLDER [NEWEST_OPSET]: cases of operators up to that opset (23). Then, with a build: tests/backend/test_backend FOLDER /dev/null.
Needs the packages onnx and numpy. The cases are not committed; docs/results/conformance.md has what came of them."""
import collections
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

root, newest = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 23
kept = collections.Counter()


def proto(x, name, kind):
    if kind.HasField("sequence_type"):
        return numpy_helper.from_list(list(x), name)
    if kind.HasField("optional_type"):
        return numpy_helper.from_optional(x, name)
    return numpy_helper.from_array(np.asarray(x), name)


for case in collect_testcases(None):
    opsets = {o.domain: o.version for o in case.model.opset_import}
    if set(opsets) - {"", "ai.onnx"} or opsets.get("", 0) > newest:
        kept["left out: newer opset or other domain"] += 1
        continue
    folder = root / "node" / case.name
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model, folder / "model.onnx")
    graph = case.model.graph
    for i, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{i}"
        data.mkdir(exist_ok=True)
        try:
            for what, values, kinds in (("input", inputs, graph.input), ("output", outputs, graph.output)):
                for k, (x, v) in enumerate(zip(values, kinds)):
                    p = x if hasattr(x, "SerializeToString") else proto(x, v.name, v.type)
                    (data / f"{what}_{k}.pb").write_bytes(p.SerializeToString())
        except Exception as e:  # noqa: BLE001 - named, and its case fails
            print(f"{case.name}: {type(e).__name__}: {e}", file=sys.stderr)
    kept[f"opset {opsets.get('')}"] += 1
print(dict(sorted(kept.items())))
