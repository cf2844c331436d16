#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of networks: one training step beside PyTorch, SparseProp and ONNX Runtime training. train_step.py BUILD_FOLDER [options]

For each network, batch and number of threads every program runs in a process of its own and all of them take turns, a few steps at a time, round
after round. Printed are medians over the rounds: images/s, and the ratio of times within a round to PyTorch's. A machine whose speed wanders slows
all of them alike; load is printed with the result. Step = forward, cross-entropy, backward, SGD with momentum 0.9, random data. Sparse means all
convolutions and matrix products but a first convolution, the last layer and grouped convolutions, for everybody (nets.py).

Needs torch and onnx; sparseprop, and a Python with onnxruntime-training (--ort-python), for those columns.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from nets import build, prunable

HERE = pathlib.Path(__file__).resolve().parent


class Program:
    """One program that takes turns; None as its answer: it failed, and why is in `error`."""

    def __init__(self, label, command, env=None):
        self.label, self.rounds, self.report, self.error = label, [], {}, None
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **(env or {})})

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            self.error = (self.log.read().strip().splitlines() or ["no answer"])[-1][:200]
            return None
        return json.loads(line)

    def turn(self, steps):
        if self.error:
            return None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        seconds = self.answer()
        return statistics.median(seconds) if seconds else None

    def finish(self):
        if not self.error:
            self.process.stdin.close()
            self.report = self.answer() or {}
        else:
            self.process.kill()
        self.process.wait()


def programs(args, name, model, batch, threads):
    def peer(kind, label, *more, python=sys.executable):
        return Program(label, [python, HERE / "peer.py", kind, name, "--batch", batch, "--threads", threads, *more] + (["--cpu-time"] if args.cpu_time else []),
                       {"OMP_NUM_THREADS": str(threads)})

    def ours(label, *more):
        return Program(label, [args.build / "bench" / "train_step", model, "--turns", "--batch", batch, "--threads", threads, *more]
                       + (["--cpu-time"] if args.cpu_time else []))

    if args.infer:
        more, kinds = ("--infer",), (("ort-infer", "ONNX Runtime dense"), ("torch-infer", "PyTorch dense"))
        for kind, label in kinds:
            yield peer(kind, label, "--model", model)
    else:
        more = ()
    dense = ",".join(f"{layer}.weight" for layer in prunable(build(name)[0])[1])
    if not args.infer:
        yield peer("torch", "PyTorch dense")
    if args.compiled:
        yield peer("torch-compiled", "PyTorch compiled")
    if args.ort_python:
        yield peer("ort", "ONNX Runtime training", "--model", model, python=args.ort_python)
    for sparsity in args.sparsity:
        if sparsity == 0:
            yield ours("MEST dense", "--only", "dense", *more)
            continue
        if args.masked:
            yield peer("torch-masked", f"PyTorch masks {100 * sparsity:g} %", "--sparsity", sparsity)
        if args.sparseprop and sparsity > 0.8:
            yield peer("sparseprop", f"SparseProp {100 * sparsity:g} %", "--sparsity", sparsity)
        for scheme in args.scheme:
            for recompute in args.recompute:
                label = f"MEST {scheme} {100 * sparsity:g} %" + (f", --recompute {recompute}" if recompute != "auto" else "")
                yield ours(label, "--only", "sparse", "--sparsity", sparsity, "--scheme", scheme, "--dense-layers", dense, "--recompute", recompute, *more)


def measure(args, name, model, batch, threads):
    running = []
    for program in programs(args, name, model, batch, threads):
        program.turn(args.warmup)
        running.append(program)
    for _ in range(args.rounds):
        for program in running:
            program.rounds.append(program.turn(args.steps))
    for program in running:
        program.finish()
    base = running[0].rounds
    for program in running:
        row = {"net": name, "batch": batch, "threads": threads, "program": program.label, "error": program.error}
        if not program.error:
            ratios = [a / b for a, b in zip(base, program.rounds)] if not running[0].error else []
            row.update({"images_per_s": batch / statistics.median(program.rounds), "ratio": statistics.median(ratios) if ratios else None,
                        "ratio_min": min(ratios, default=None), "ratio_max": max(ratios, default=None), "peak_mb": program.report.get("peak_bytes", 0) * 1e-6,
                        "before_mb": program.report.get("before_bytes", 0) * 1e-6, "load": os.getloadavg()[0]})
        yield row


def table_row(row):
    head = f"| {row['net']} | {row['batch']} | {row['threads']} | {row['program']} |"
    if row["error"]:
        return f"{head} failed: {row['error']} | | | |"
    ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})" if row["ratio"] else ""
    return f"{head} {row['images_per_s']:.1f} | {ratio} | {row['peak_mb']:.0f} | {row['before_mb']:.0f} |"


def numbers(kind):
    return lambda text: [kind(x) for x in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="meson build folder with bench/train_step; models are exported to bench/models in it")
    parser.add_argument("--nets", default="resnet32w,resnet18,mobilenetv2,resnet50,vittiny,dscnn,lenet300", help="comma-separated, see nets.py")
    parser.add_argument("--batch", type=numbers(int), default=[64], help="comma-separated")
    parser.add_argument("--threads", type=numbers(int), default=[1], help="comma-separated")
    parser.add_argument("--sparsity", type=numbers(float), default=[0, 0.8, 0.9, 0.95], help="comma-separated; 0: dense")
    parser.add_argument("--scheme", type=numbers(str), default=["csr"], help="comma-separated: csr, pattern, block4, ..")
    parser.add_argument("--recompute", type=numbers(str), default=["auto"], help="comma-separated: auto, 10%%, least, ..: activations computed again, as for mest-run")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall-time", dest="cpu_time", action="store_false", help="wall time; the default is processor time of the process, for a busy machine")
    parser.add_argument("--infer", action="store_true", help="inference instead of training, beside ONNX Runtime (the base of the ratios) and PyTorch")
    parser.add_argument("--compiled", action="store_true", help="PyTorch through torch.compile as well")
    parser.add_argument("--masked", action="store_true", help="PyTorch with masks as well")
    parser.add_argument("--sparseprop", action="store_true", help="SparseProp as well")
    parser.add_argument("--ort-python", help="a Python that has onnxruntime-training: ONNX Runtime training as well")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row instead of a table")
    args = parser.parse_args()
    folder = args.build / "bench" / "models"
    names = args.nets.split(",")
    missing = [name for name in names if not (folder / f"{name}.onnx").exists()]
    if missing:
        subprocess.run([sys.executable, str(HERE / "make_models.py"), str(folder), *missing], check=True, stdout=sys.stderr)
    if not args.json:
        print(f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {args.rounds} rounds of {args.steps} steps, "
              f"{'processor time' if args.cpu_time else 'wall time'}, load {os.getloadavg()[0]:.1f} at the start\n")
        print(f"| network | batch | threads | program | images/s | x {'ONNX Runtime' if args.infer else 'PyTorch'} dense (min-max) | peak MB | of which before the model |\n" + "| --- " * 8 + "|")
    for name in names:
        for threads in args.threads:
            for batch in args.batch:
                for row in measure(args, name, folder / f"{name}.onnx", batch, threads):
                    print(json.dumps(row) if args.json else table_row(row), flush=True)
    if not args.json:
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
