#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One training step beside dense PyTorch: train_step.py BUILD_FOLDER [options]

For each network PyTorch (eager, dense) and our train_step program (dense and sparse) run the same architecture and batch in turn, round after
round, with the same number of threads; what is printed are medians over the rounds of images/s and of the ratios within a round. A machine
whose speed wanders slows all of them alike. Step = forward, cross-entropy, backward, SGD with momentum 0.9.
With --ort, ONNX Runtime runs inference of the same file (no training), for scale.

Needs torch and onnx (and onnxruntime for --ort).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

import make_models
from nets import NETS, build


def torch_steps(name, batch, threads, steps, warmup, clock, channels_last):
    """Seconds of a step of the network in PyTorch: median of `steps`."""
    torch.set_num_threads(threads)
    network, shape, classes = build(name)
    inputs, targets = torch.randn(4, batch, *shape), torch.randint(0, classes, (4, batch))
    if channels_last and len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    times = []
    for i in range(warmup + steps):
        x = inputs[i % 4]
        if channels_last and len(shape) == 3:
            x = x.contiguous(memory_format=torch.channels_last)
        start = clock()
        optimizer.zero_grad()
        loss(network(x), targets[i % 4]).backward()
        optimizer.step()
        times.append(clock() - start)
    return statistics.median(times[warmup:])


def our_steps(program, model, batch, threads, steps, warmup, sparsity, scheme, cpu_time, extra):
    """Seconds of a step of our program, one variant alone in a process of its own, and all it reported."""
    command = [str(program), str(model), "--batch", str(batch), "--threads", str(threads), "--steps", str(steps), "--warmup", str(warmup), "--rounds", "1", "--json"]
    command += ["--only", "sparse", "--sparsity", str(sparsity), "--scheme", scheme] if sparsity else ["--only", "dense"]
    done = subprocess.run(command + (["--cpu-time"] if cpu_time else []) + extra, stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)["sparse" if sparsity else "dense"]
    return report["step_ms"] * 1e-3, report


def ort_steps(model, name, batch, threads, steps, warmup, clock):
    """Seconds of an inference in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    x = torch.randn(batch, *NETS[name][1]).numpy()
    times = []
    for _ in range(warmup + steps):
        start = clock()
        session.run(None, {session.get_inputs()[0].name: x})
        times.append(clock() - start)
    return statistics.median(times[warmup:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path, help="meson build folder with bench/train_step; models are exported to bench/models in it")
    parser.add_argument("--nets", default=",".join(NETS), help="comma-separated, of: " + ", ".join(NETS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--sparsity", default="0.9,0.95", help="comma-separated; dense is always measured")
    parser.add_argument("--scheme", default="block4")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each in a round")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch in NHWC")
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of wall time (one thread, busy machine)")
    parser.add_argument("--ort", action="store_true", help="inference in ONNX Runtime as well")
    parser.add_argument("--json", action="store_true")
    args, extra = parser.parse_known_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    program, folder = args.build / "bench" / "train_step", args.build / "bench" / "models"
    sparsities = [0.0] + [float(s) for s in args.sparsity.split(",") if float(s) > 0]
    folder.mkdir(parents=True, exist_ok=True)
    if not args.json:
        print(f"batch {args.batch}, {args.rounds} rounds of {args.steps} steps, PyTorch {torch.__version__}{' channels_last' if args.channels_last else ''}"
              f"{', processor time' if args.cpu_time else ''}")
        print(f"{'net':<12} {'threads':>7} {'variant':<16} {'images/s':>9} {'x PyTorch':>9} {'(min':>6} {'max)':>6} {'peak MB':>8}")
    for name in args.nets.split(","):
        model = folder / f"{name}.onnx"
        if not model.exists():
            with open(model.with_suffix(".log"), "w") as log:
                sys.stdout, stdout = log, sys.stdout
                make_models.export(name, model)
                sys.stdout = stdout
        for threads in (int(t) for t in args.threads.split(",")):
            seconds, peak = {"pytorch dense": []}, {}
            for _ in range(args.rounds):
                seconds["pytorch dense"].append(torch_steps(name, args.batch, threads, args.steps, args.warmup, clock, args.channels_last))
                for s in sparsities:
                    label = f"{args.scheme} {100 * s:g} %" if s else "dense"
                    t, report = our_steps(program, model, args.batch, threads, args.steps, args.warmup, s, args.scheme, args.cpu_time, extra)
                    seconds.setdefault(label, []).append(t)
                    peak[label] = report["vmhwm_bytes"] * 1e-6
                if args.ort:
                    seconds.setdefault("ort inference", []).append(ort_steps(model, name, args.batch, threads, args.steps, args.warmup, clock))
            for label, times in seconds.items():
                ratios = [a / b for a, b in zip(seconds["pytorch dense"], times)]
                row = {"net": name, "threads": threads, "variant": label, "images_per_s": args.batch / statistics.median(times),
                       "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios), "peak_mb": peak.get(label)}
                if args.json:
                    print(json.dumps(row))
                else:
                    print(f"{name:<12} {threads:>7} {label:<16} {row['images_per_s']:>9.1f} {row['ratio']:>9.2f} {row['ratio_min']:>6.2f} {row['ratio_max']:>6.2f} "
                          + (f"{peak[label]:>8.1f}" if label in peak else ""))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
