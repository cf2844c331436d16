# SPDX-License-Identifier: Apache-2.0
"""What the interop tests share: running mest-run, counting, skipping. Needs only the standard library to be imported."""
import os
import subprocess
import sys
import tempfile

FIXTURES = ("mlp", "lenet5", "resnet8", "mobilenetv2", "dscnn1d", "unet")
LOSSES = {"softmax_ce": "ce", "mse": "mse", "bce_logits": "bce"}
passed = failed = skipped = 0


def verdict(name, good, text=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {text}")


def skip(name, why):
    global skipped
    skipped += 1
    print(f"skip {name}: {why}")


def leave(why):
    """Nothing can be tested."""
    skip("all", why)
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(77)


def finish():
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


def shared_folder():
    folder = os.environ.get("MEST_SHARED")
    return folder if folder and os.path.isdir(os.path.join(folder, "fixtures")) else None


def need(*modules):
    found = []
    for name in modules:
        try:
            found.append(__import__(name))
        except ImportError:
            leave(f"Python module {name} is missing")
    return found


def run(program, *arguments, timeout=120):
    """Standard error of a run that succeeded; None, and a failure counted, otherwise."""
    done = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, check=False)
    if done.returncode:
        verdict(" ".join(map(str, arguments))[:150], False, f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
        return None
    return done.stderr.decode(errors="replace")


def meta(folder):
    with open(os.path.join(folder, "meta.txt"), encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(" ", 1) for line in f if " " in line)


def recipe(folder, batch):
    """The fixtures' training rule as options."""
    m = meta(folder)
    return ["--train", "--data", f"npy:{folder}/input.npy,{folder}/label.npy", "--no-shuffle", "-b", batch, "--max-steps", 10, "--loss",
            LOSSES[m["loss"]], "--opt", "sgd", "--lr", m["lr"], "--momentum", m["momentum"], "--weight-decay", m["weight_decay"],
            "--sched", "constant", "--no-eval-before", "-q", "--progress", "off"]


MASKED = ["--sparsity", "0.8", "--scheme", "csr", "--method", "static", "--dense-layers", "none"]


def work_folder():
    return tempfile.TemporaryDirectory(prefix="mest-interop-")
