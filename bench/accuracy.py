#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Accuracy studies: runs mest-run over a grid of methods, schemes, sparsities and seeds and notes what it saw, one row a run.

    accuracy.py STUDY --mest-run BUILD/tools/mest-run --model NET.onnx --data DIR --results FILE.tsv [--seeds 1,2,3] [--only TEXT]
    accuracy.py --table FILE.tsv [STUDY]

Studies: lenet300 (MNIST, idx files in DIR), resnet20 (CIFAR-10 from scratch: batches 1 to 4 of DIR are trained on, batch 5 is tested),
finetune (the same batches, from the weights in the file; tested on test_first1000.bin of DIR, as those weights may have seen batch 5). The networks are those of bench/peers/make_models.py or any other of that shape.
A run whose row is in FILE is not done again, so a study can be stopped at any time and taken up by the same command. Standard library only.
"""
import argparse
import datetime
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

COLUMNS = ["study", "method", "scheme", "sparsity", "seed", "epochs", "accuracy", "loss", "stored", "cpu_s", "wall_s", "peak_mb", "date", "version", "options"]
CIFAR = ["--mean", ".485,.456,.406", "--std", ".229,.224,.225", "--augment", "pad4,flip", "--momentum", "0.9", "--weight-decay", "1e-4",
         "--sched", "cosine", "-b", "64", "--freeze", "*shortcut*"]


# SET as later comparisons have it: smallest magnitudes, new weights at 0, a rate that falls. The authors' draw new weights at random, and go on to the end.
SET_ZERO = "--method set:select=magnitude,init=zero,decay=cosine"


class Setting:
    """One row of a study's table: a method with its scheme and sparsity."""

    def __init__(self, method, scheme, sparsity, options):
        self.method, self.scheme, self.sparsity, self.options = method, scheme, sparsity, options

    def key(self, study, seed, epochs):
        return study, self.method, self.scheme, f"{self.sparsity:g}", str(seed), str(epochs)


def sparse(method, scheme, sparsity, switch, *more):
    return Setting(method, scheme, sparsity, ["--sparsity", f"{sparsity:g}", "--scheme", scheme, *switch.split(), *more])


def dense():
    return Setting("dense", "-", 0, ["--sparsity", "0"])


def ems(sparsity, every):
    """The published bounds at 90 and 95 %; above that half and a quarter of the stored weights, as at 90 %."""
    density = 1 - sparsity
    bound = "" if sparsity <= .95 else f":bound={density / 2:g}/{density / 4:g}/0"
    return f"--method mest-ems{bound} --mutate-every {every}"


def lenet300():
    """All three layers sparse, by the rule of Erdos and Renyi: at 99 % the last one would else keep 10 weights of 1,000."""
    rows = [dense()]
    for s in (.9, .95, .98, .99):
        methods = [("static", "--method static"), ("set", "--method set"), ("set-zero", SET_ZERO), ("dsr", "--method dsr"), ("deepr", "--method deepr"),
                   ("rigl", "--method rigl"), ("snfs", "--method snfs"), ("mest-em", "--method mest-em --mutate-every 1"), ("mest-ems", ems(s, 1))]
        rows += [sparse(name, "csr", s, switch, "--distribution", "er", "--dense-layers", "none") for name, switch in methods]
    return rows


def resnet20(epochs):
    """In the order of what one wants to know first."""
    em = "--method mest-em --mutate-every 1"
    forget = ["--forget-epoch", str(round(.4375 * epochs)), "--forget-remove", "0.24"]
    rows = []
    for s in (.9, .95):
        rows += [sparse("mest-em", "block4", s, em), sparse("mest-em", "csr", s, em), sparse("static", "csr", s, "--method static"),
                 sparse("mest-ems", "csr", s, ems(s, 1)), sparse("mest-em", "pattern", s, em), sparse("set-zero", "csr", s, SET_ZERO),
                 sparse("mest-ems+forgetting", "csr", s, ems(s, 1), *forget), sparse("rigl", "csr", s, "--method rigl")]
        rows += [dense()] if s == .9 else []
        rows += [sparse("mest-ems", scheme, s, ems(s, 1)) for scheme in ("block4", "pattern")]
        for scheme in ("block4", "pattern"):
            rows += [sparse("static", scheme, s, "--method static"), sparse("set-zero", scheme, s, SET_ZERO), sparse("rigl", scheme, s, "--method rigl"),
                     sparse("mest-ems+forgetting", scheme, s, ems(s, 1), *forget)]
    rows += [sparse("mest-em", scheme, .5, em) for scheme in ("filter", "channel")]
    rows += [sparse("mest-em", scheme, .9, em) for scheme in ("block8", "block16", "punched8x4")]
    return rows + [sparse("mest-em", scheme, s, em) for scheme, s in (("nm1:4", .75), ("nm2:8", .75))]


def finetune():
    rows = [sparse("mest-em", scheme, .9, "--method mest-em --mutate-every 1") for scheme in ("csr", "block4", "pattern")]
    rows += [sparse(name, scheme, .9, switch) for scheme in ("csr", "block4", "pattern") for name, switch in (("static", "--method static"), ("mest-ems", ems(.9, 1)))]
    rows += [sparse("rigl", "csr", .9, "--method rigl"),
             sparse("mest-em", "nm2:4", .5, "--method mest-em --mutate-every 1"), sparse("mest-em", "filter", .5, "--method mest-em --mutate-every 1")]
    return rows


def studies(name, epochs, data):
    """(settings, epochs, options of every run)"""
    if name == "lenet300":
        common = ["--from-scratch", "--data", f"idx:{data}", "--val", f"idx-test:{data}", "--mean", ".1307", "--std", ".3081", "-b", "100",
                  "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "5e-4", "--sched", "cosine"]
        return lenet300(), epochs or 20, common
    files = [f"cifar10:{data}", "--val", f"cifar10-test:{data}/data_batch_5.bin"]
    if name == "resnet20":
        epochs = epochs or 10
        return resnet20(epochs), epochs, ["--from-scratch", "--data", *files, "--lr", "0.1", *CIFAR]
    epochs = epochs or 5  # the weights in the file have seen all five batches, so it is tested on images of the official test batch
    files[2] = f"cifar10-test:{data}/test_first1000.bin"
    return finetune(), epochs, ["--data", *files, "--lr", "0.05", *CIFAR]


def four_batches(data, folder):
    """A folder that has batches 1 to 4 only: the fifth is for testing."""
    for i in range(1, 5):
        (folder / f"data_batch_{i}.bin").symlink_to(pathlib.Path(data, f"data_batch_{i}.bin").resolve())
    return folder


def read(path):
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:] if line.count("\t") == len(COLUMNS) - 1]


def append(path, row):
    new = not path.exists()
    with open(path, "a") as f:
        if new:
            f.write("\t".join(COLUMNS) + "\n")
        f.write("\t".join(str(row[c]) for c in COLUMNS) + "\n")
        f.flush()
        os.fsync(f.fileno())


def run(args, common, setting, seed, epochs, version):
    with tempfile.TemporaryDirectory() as folder:
        options = [*common, "--epochs", str(epochs), *setting.options, "--seed", str(seed), "-t", str(args.threads), "--no-eval-before"]
        if args.study != "lenet300":
            train = four_batches(args.data, pathlib.Path(folder))
            options[options.index(f"cifar10:{args.data}")] = f"cifar10:{train}"
        command = [args.mest_run, args.model, "--train", *options, "--val-interval", str(epochs), "--json", "-o", f"{folder}/out.onnx"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()[-800:]}")
        summary = next(e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "summary")
    whole = [w for w in summary["weights"] if w["scheme"] != "dense"]
    shown = " ".join(options).replace(str(args.data), "DIR")
    shown = shown.replace(folder, "BATCHES_1_TO_4")
    return {
        "study": args.study, "method": setting.method, "scheme": setting.scheme, "sparsity": f"{setting.sparsity:g}", "seed": seed, "epochs": epochs,
        "accuracy": f"{100 * summary['after']['accuracy']:.2f}", "loss": f"{summary['after']['loss']:.4f}",
        "stored": sum(w["stored"] for w in whole), "cpu_s": f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.0f}",
        "wall_s": f"{summary['seconds']:.0f}", "peak_mb": f"{summary['peak_bytes'] / 1e6:.1f}",
        "date": datetime.date.today().isoformat(), "version": version, "options": shown,
    }


def table(rows, study):
    """Mean of the seeds, smallest to largest in brackets; a line for each method and scheme, a column for each sparsity."""
    rows = [r for r in rows if not study or r["study"] == study]
    for name in dict.fromkeys(r["study"] for r in rows):
        own = [r for r in rows if r["study"] == name]
        columns = sorted({r["sparsity"] for r in own}, key=float)
        print(f"\n### {name}\n\n| method | scheme | {' | '.join(columns)} |\n| --- | --- |{' --- |' * len(columns)}")
        for method, scheme in dict.fromkeys((r["method"], r["scheme"]) for r in own):
            cells = []
            for s in columns:
                a = [float(r["accuracy"]) for r in own if (r["method"], r["scheme"], r["sparsity"]) == (method, scheme, s)]
                cells.append("" if not a else f"{a[0]:.2f}" if len(a) == 1 else f"{statistics.mean(a):.2f} ({min(a):.2f}-{max(a):.2f})")
            print(f"| {method} | {scheme} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", choices=["lenet300", "resnet20", "finetune"])
    parser.add_argument("--mest-run", default="build/tools/mest-run")
    parser.add_argument("--model")
    parser.add_argument("--data", help="folder of the data files")
    parser.add_argument("--results", type=pathlib.Path, default="accuracy.tsv")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="settings whose 'method scheme sparsity' has this in it; several: separated by commas")
    parser.add_argument("--table", type=pathlib.Path, help="print the tables of a results file")
    args = parser.parse_args()
    if args.table:
        return table(read(args.table), args.study)
    if not (args.study and args.model and args.data):
        parser.error("a study needs --model and --data")
    args.data = args.data.rstrip("/")
    settings, epochs, common = studies(args.study, args.epochs, args.data)
    version = subprocess.run([args.mest_run, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]
    done = {tuple(r[c] for c in COLUMNS[:6]) for r in read(args.results)}
    failed = 0
    for seed in args.seeds.split(","):
        for setting in settings:
            key = setting.key(args.study, seed, epochs)
            if key in done or (args.only and not any(o in f"{setting.method} {setting.scheme} {setting.sparsity:g}" for o in args.only.split(","))):
                continue
            try:
                row = run(args, common, setting, seed, epochs, version)
            except RuntimeError as e:
                print(f"failed: {' '.join(key)}\n{e}", file=sys.stderr, flush=True)
                failed += 1
                continue
            append(args.results, row)
            print(f"{' '.join(key)}: {row['accuracy']} % in {row['cpu_s']} s of processor time", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
