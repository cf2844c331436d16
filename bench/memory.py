#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory of training: predicted, measured, limited, network by network, with PyTorch's peak for the same batch beside it.

    bench/memory.py MEST_RUN MODELS_DIR > table.md      MODELS_DIR: of bench/peers/make_models.py

Every run is a process of its own on made-up samples: without a limit, then with limits between what the process needs beside a step's activations and
what it needs without a limit. "measured" is VmHWM of the process, so code, libraries, and the data pipeline are in it. PyTorch (dense, SGD with
momentum) is what its process had at most and, in brackets, how much of that came after torch had been imported.
Needs numpy and, for the networks and the column of PyTorch, torch (--no-torch: without)."""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
# name: batch, shape of a sample, classes
NETWORKS = {
    "lenet300": (256, (1, 28, 28), 10), "dscnn": (128, (1, 49, 10), 12), "resnet32w": (64, (3, 32, 32), 10), "resnet18": (32, (3, 64, 64), 200),
    "mobilenetv2": (32, (3, 96, 96), 10), "vittiny": (32, (3, 32, 32), 10), "resnet50": (8, (3, 128, 128), 1000)}
MIB = 1 << 20

TORCH = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, nets
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
torch.set_num_threads(int(sys.argv[4]))
before = peak()
net, shape, classes = nets.build(sys.argv[2])
sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
x, y = torch.randn(int(sys.argv[3]), *shape), torch.randint(0, classes, (int(sys.argv[3]),))
for _ in range(3):
    sgd.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    sgd.step()
print(peak(), peak() - before)
"""


def torch_peak(name, batch, threads):
    done = subprocess.run([sys.executable, "-c", TORCH, HERE / "peers", name, str(batch), str(threads)], capture_output=True, text=True)
    return [int(n) for n in done.stdout.split()] if done.returncode == 0 else None


def train(args, model, data, batch, limit):
    """The summary of a run, or what its refusal says would do, in MiB; None, and the last line of what it said, for anything else."""
    command = [args.mest_run, model, "--train", "--data", data, "-b", str(batch), "--max-steps", str(args.steps), "--sparsity", str(args.sparsity),
               "-t", str(args.threads), "--json", "-q", "-o", data.split(":")[1].split(",")[0] + ".onnx"]
    command += [f"--mem-limit={limit}B"] if limit else []
    done = subprocess.run([str(c) for c in command + args.more], capture_output=True, text=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode == 0:
        start = next(e for e in events if e["event"] == "start")
        return {**start, **next(e for e in events if e["event"] == "summary")}, None
    enough = re.search(r"([0-9.]+) MiB would do", done.stderr)
    return None, float(enough.group(1)) if done.returncode == 7 and enough else done.stderr.strip().splitlines()[-1]


def mib(n):
    return f"{n / MIB:.1f}"


def row(name, batch, limit, torch_text, result, refused):
    head = f"| {name} | {batch} | {mib(limit) if limit else 'none'} |"
    if not result:
        return f"{head} refused: {refused:.1f} would do | | | | | |" if isinstance(refused, float) else f"{head} FAILED: {refused} | | | | | |"
    predicted, measured = result["predicted_process_bytes"], result["resident_peak_bytes"]
    good = abs(predicted - measured) <= 0.05 * measured + 2 * MIB and (not limit or measured <= limit)
    return (f"| {name} | {batch} | {mib(limit) if limit else 'none'} | {'obeyed' if limit else ''}{'' if good else ' NOT AS PREDICTED'} | {result['images_per_second']:.1f} | "
            f"{mib(predicted)} | {mib(measured)} | {result['memory_chosen'] or '-'} | {torch_text} |").replace("| " + name, "| " + name, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mest_run")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--parts", type=lambda text: [float(x) for x in text.split(",")], default=[0.75, 0.5, 0.25],
                        help="limits: so much of a step's activations, and all the rest")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--more", type=lambda text: text.split(), default=[], help="further options of mest-run")
    args = parser.parse_args()
    print("| network | batch | limit, MiB | | images/s | predicted, MiB | measured, MiB | chosen | PyTorch, MiB |\n" + "| --- " * 9 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks:
            batch, shape, classes = NETWORKS[name]
            random = np.random.default_rng(1)
            files = [f"{folder}/{name}-x.npy", f"{folder}/{name}-y.npy"]
            np.save(files[0], random.standard_normal((2 * batch, *shape), dtype=np.float32))
            np.save(files[1], random.integers(0, classes, 2 * batch))
            data = "npy:" + ",".join(files)
            peak = None if args.no_torch else torch_peak(name, batch, args.threads)
            peak = f"{mib(peak[0])} ({mib(peak[1])})" if peak else "-"
            free, why = train(args, args.models / f"{name}.onnx", data, batch, 0)
            print(row(name, batch, 0, peak, free, why), flush=True)
            for part in args.parts if free else []:
                limit = int(free["predicted_process_bytes"] - (1 - part) * free["activation_bytes"])
                print(row(name, batch, limit, "", *train(args, args.models / f"{name}.onnx", data, batch, limit)), flush=True)


if __name__ == "__main__":
    main()
