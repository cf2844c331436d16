# SPDX-License-Identifier: Apache-2.0
"""The training rule of the fixtures, from the command line alone: ten steps, dense and masked, several setups; the weights of the exported
file against the framework's numbers. Usage: rule.py MEST_RUN [FIXTURE...]"""
import json
import math
import os
import subprocess
import sys

import common

numpy, onnx = common.need("numpy", "onnx")
from onnx import numpy_helper  # noqa: E402

# In these runs a pre-activation comes within rounding (1e-7) of a kink of Relu or Clip at the step named (counted from 1). Where it falls
# on the other side than in exact arithmetic, which depends on the order of a sum and so on the setup, the run follows another branch
# from there: then only the losses up to that step are compared.
KINKS = {("mobilenetv2", "dense"): 6, ("resnet8", "masked"): 3}
SETUPS = {
    "dense": ["--sparsity", "0", "-t", "1"],
    "dense, own kernels": ["--sparsity", "0", "--no-xnnpack", "-t", "2"],
    "dense, scalar": ["--sparsity", "0", "--kernels", "scalar", "--no-xnnpack", "-t", "1"],
    "masked": [*common.MASKED, "-t", "2"],
    "masked, scalar": [*common.MASKED, "--kernels", "scalar", "--no-xnnpack", "-t", "1"],
}


def weights(path):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def error(found, folder, reference):
    """Largest |a - r| / (|r| + 1e-3 |all r|) over the parameters, and the parameter."""
    flat = numpy.load(os.path.join(folder, reference)).astype(numpy.float64)
    floor = 1e-3 * math.sqrt(float((flat * flat).sum()))
    worst, name = 0.0, ""
    with open(os.path.join(folder, "params.tsv"), encoding="utf-8") as f:
        for line in f:
            if line.startswith("#"):
                continue
            key, _, _, offset, count = line.split("\t")[:5]
            r = flat[int(offset):int(offset) + int(count)]
            if key not in found:
                return math.inf, key + " is not in the file"
            a = found[key].astype(numpy.float64).ravel()
            e = float(numpy.linalg.norm(a - r) / (numpy.linalg.norm(r) + floor))
            if not e <= worst:
                worst, name = e, key
    return worst, name


def loss_error(program, arguments, folder, reference, steps):
    """Largest relative error of the first losses."""
    done = subprocess.run([program, *map(str, arguments), "--json", "--log-interval", "1"], stdout=subprocess.PIPE, check=True, timeout=120)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    got = [e["batch"]["loss"] for e in events if e["event"] == "step"][:steps]
    want = numpy.load(os.path.join(folder, reference))
    return max(abs(a - r) / (abs(r) + 1e-3) for a, r in zip(got, want)) if len(got) == steps else math.inf


def main():
    program, names = sys.argv[1], sys.argv[2:] or common.FIXTURES
    shared = common.shared_folder()
    if not shared:
        common.leave("the fixtures are not here (MEST_SHARED)")
    with common.work_folder() as work:
        for name in names:
            folder = os.path.join(shared, "fixtures", name)
            batch = numpy.load(os.path.join(folder, "input.npy")).shape[0]
            for setup, options in SETUPS.items():
                out = os.path.join(work, "out.onnx")
                arguments = [os.path.join(folder, "model.onnx"), *common.recipe(folder, batch), *options, "-o", out]
                if common.run(program, *arguments) is None:
                    continue
                kind = "masked" if "masked" in setup else "dense"
                got, key = error(weights(out), folder, "masked_after10.npy" if kind == "masked" else "after10.npy")
                if os.environ.get("MEST_VERBOSE"):
                    print(f"{name:12} {setup:20} {got:.2e} {key}")
                kink = KINKS.get((name, kind))
                if kink and got > 1e-5:
                    worst = loss_error(program, arguments, folder, "masked_loss.npy" if kind == "masked" else "loss.npy", kink)
                    common.verdict(f"{name} ({setup})", worst <= 2e-5, f"losses of {kink} steps: {worst:.2e}")
                    common.skip(f"{name} ({setup})", f"weights: another branch at a kink of Relu or Clip in step {kink} ({got:.1e})")
                else:
                    common.verdict(f"{name} ({setup})", got <= 1e-5, f"weights after ten steps: {got:.2e} ({key})")
    common.finish()


main()
