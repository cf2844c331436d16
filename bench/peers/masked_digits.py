#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MEST in PyTorch, with masks on dense weights, beside mest-run: the same network, data, weights at the start and recipe, scheme by scheme
and method by method. Order of the samples and random growth differ, so means over seeds are compared.

    masked_digits.py MEST_RUN EXAMPLES_DIGITS [--seeds N] [--schemes csr,block4,..] [--methods static,mest-em,mest-ems] [--sparsity S]

Trains on 600 of the bundled 8x8 digits for 6 epochs and tests on the other 1,197: short, so that there is something left to tell apart. The
difference of two means is given in units of its standard error, sqrt(s1^2/n + s2^2/n); beyond 3 they do not agree. Needs numpy, onnx, torch.
"""
import argparse
import gzip
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

EPOCHS, BATCH, LR, MOMENTUM, TRAIN = 6, 32, 0.05, 0.9, 600
BOUNDARIES = (.5625, .75)
# per stage: part of the stored weights that goes, density beyond the target's that grows
STAGES = {"static": ((0, 0), (0, 0), (0, 0)), "mest-em": ((.2, 0), (.1, 0), (0, 0)), "mest-ems": ((0, .05), (0, .025), (0, 0))}
SPARSITY = {"csr": .9, "block4": .9, "block8": .9, "block16": .9, "punched8x4": .9, "pattern": .9, "nm2:4": .5, "nm1:4": .75, "nm2:8": .75,
            "filter": .5, "channel": .5}
PATTERNS = [0x1b0, 0x0d8, 0x036, 0x01b, 0x1e0, 0x0b8, 0x0b2, 0x09a]  # bit 3 * row + column


def rounded(x):
    return math.floor(x + .5)


def ranks(group):
    """Place of each entry in its group; groups ascend."""
    n = len(group)
    first = numpy.concatenate([[True], group[1:] != group[:-1]]) if n else numpy.zeros(0, bool)
    return numpy.arange(n) - numpy.maximum.accumulate(numpy.where(first, numpy.arange(n), 0))


def remove_balanced(score, active, group, n_groups, keep):
    """The least important units of the fullest groups go until `keep` are left; equal scores: the lower id goes."""
    score, group, on = score.numpy(), group.numpy(), active.numpy().copy()
    base = keep // n_groups
    own = numpy.flatnonzero(on)
    own = own[numpy.lexsort((own, score[own], group[own]))]
    count = numpy.bincount(group, on, n_groups).astype(int)
    rank, gone = ranks(group[own]), numpy.maximum(0, count - (base + 1))[group[own]]
    on[own[rank < gone]] = False
    next_one = own[(rank == gone) & (count[group[own]] > base)]  # of each group that has base + 1
    next_one = next_one[numpy.lexsort((next_one, score[next_one]))]
    on[next_one[:max(0, int(on.sum()) - keep)]] = False
    return torch.from_numpy(on)


def grow_balanced(active, group, n_groups, final, random):
    """Random inactive units of the emptiest groups come until there are `final`; returns the new ones too."""
    group, on = group.numpy(), active.numpy().copy()
    base, rest = divmod(final, n_groups)
    count = numpy.bincount(group, on, n_groups).astype(int)
    want = base + (count > base)
    room = random.permutation(numpy.flatnonzero(count <= base))
    want[room[:max(0, rest - int((count > base).sum()))]] += 1
    free = numpy.flatnonzero(~on)
    free = free[numpy.lexsort((random.random(len(free)), group[free]))]
    new = free[ranks(group[free]) < (want - count)[group[free]]]
    on[new] = True
    return torch.from_numpy(on), new.tolist()


class Units:
    """Mask of a weight whose units are fixed sets of elements: csr, blocks, punched blocks, N:M."""

    def __init__(self, scheme, weight):
        o, i, kh, kw = weight.shape
        index = torch.arange(weight.numel()).reshape(weight.shape)
        oo, ii, kk = index // (i * kh * kw), index // (kh * kw) % i, index % (kh * kw)
        self.n_groups = 1
        if scheme == "csr" or scheme.startswith("nm"):
            self.unit = index
        elif scheme.startswith("block"):
            self.unit = (oo // int(scheme[5:])) * (i * kh * kw) + ii * (kh * kw) + kk
        else:
            f, c = map(int, scheme[7:].split("x"))
            self.unit = ((oo // f) * ((i + c - 1) // c) + ii // c) * (kh * kw) + kk
        self.n = int(self.unit.max()) + 1
        self.group = torch.zeros(self.n, dtype=torch.long)
        if scheme.startswith("nm"):
            m = int(scheme.split(":")[1])
            self.group = ((oo * (i // m) + ii // m) * (kh * kw) + kk).flatten()
            self.n_groups = int(self.group.max()) + 1
        self.active = torch.ones(self.n, dtype=torch.bool)

    def scores(self, weight):
        return torch.zeros(self.n).index_add_(0, self.unit.flatten(), weight.detach().flatten() ** 2).sqrt()

    def count(self, sparsity):
        return rounded((1 - sparsity) * self.n)

    def keep(self, weight, sparsity):
        self.active = remove_balanced(self.scores(weight), self.active, self.group, self.n_groups, self.count(sparsity))

    def grow(self, sparsity, random):
        self.active, _ = grow_balanced(self.active, self.group, self.n_groups, self.count(sparsity), random)

    def mask(self):
        return self.active[self.unit].float()


class Kernels:
    """Mask of a 3x3 weight by the pattern scheme: four of nine positions a kernel, the same number of kernels a filter."""

    def __init__(self, weight):
        self.o, self.i = weight.shape[:2]
        self.table = torch.tensor([[p >> k & 1 for k in range(9)] for p in PATTERNS]).float()
        self.choice = ((weight.detach().reshape(self.o, self.i, 1, 9) ** 2) * self.table).sum(-1).argmax(-1).flatten()
        self.group = torch.arange(self.o).repeat_interleave(self.i)
        self.active = torch.ones(self.o * self.i, dtype=torch.bool)

    def count(self, sparsity):
        return self.o * (self.i - math.floor(self.i * (1 - (1 - sparsity) * 9 / 4) + 1e-9))

    def keep(self, weight, sparsity):
        score = (weight.detach().reshape(-1, 9) ** 2 * self.table[self.choice]).sum(-1).sqrt()
        self.active = remove_balanced(score, self.active, self.group, self.o, self.count(sparsity))

    def grow(self, sparsity, random):
        self.active, new = grow_balanced(self.active, self.group, self.o, self.count(sparsity), random)
        if new:
            self.choice[new] = torch.from_numpy(random.integers(0, len(PATTERNS), len(new)))

    def mask(self):
        return (self.table[self.choice] * self.active.float()[:, None]).reshape(self.o, self.i, 3, 3)


class Network:
    """The bundled digits network with its weights from the file."""

    def __init__(self, path):
        tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
        self.w = {n: t.requires_grad_() for n, t in tensors.items() if "running" not in n}
        self.s = {n: t for n, t in tensors.items() if "running" in n}
        self.momentum = {n: torch.zeros_like(t) for n, t in self.w.items()}
        self.mask = {}

    def __call__(self, x, train):
        for k in "123":
            x = F.conv2d(x, self.w[f"conv{k}.weight"], padding=1)
            x = F.batch_norm(x, self.s[f"bn{k}.running_mean"], self.s[f"bn{k}.running_var"], self.w[f"bn{k}.weight"], self.w[f"bn{k}.bias"], train, .1, 1e-5)
            x = F.relu(x)
            if k == "2":
                x = F.max_pool2d(x, 2)
        return F.linear(x.mean((2, 3)), self.w["fc.weight"], self.w["fc.bias"])

    def step(self, x, y, lr):
        loss = F.cross_entropy(self(x, True), y)
        gradients = torch.autograd.grad(loss, list(self.w.values()))
        with torch.no_grad():
            for (name, w), g in zip(self.w.items(), gradients):
                m = self.mask.get(name)
                self.momentum[name].mul_(MOMENTUM).add_(g if m is None else g * m)
                w.sub_(lr * self.momentum[name])

    def apply(self):
        """What is masked is 0, and so is its optimizer state."""
        with torch.no_grad():
            for name, m in self.mask.items():
                self.w[name].mul_(m)
                self.momentum[name].mul_(m)


class Weights:
    """conv2 and conv3 with masks of a scheme."""

    def __init__(self, net, scheme, sparsity):
        self.net = net
        self.parts = {n: Kernels(net.w[n]) if scheme == "pattern" else Units(scheme, net.w[n]) for n in ("conv2.weight", "conv3.weight")}
        for name, part in self.parts.items():
            part.keep(net.w[name], sparsity)
        self.apply()

    def apply(self):
        for name, part in self.parts.items():
            self.net.mask[name] = part.mask()
        self.net.apply()

    def mutate(self, prune_to, grow_to, random):
        for name, part in self.parts.items():
            before = part.mask()
            part.keep(self.net.w[name], prune_to)
            kept = part.mask() * before
            with torch.no_grad():  # what grows begins at 0, at places that were just removed as well
                self.net.w[name].mul_(kept)
                self.net.momentum[name].mul_(kept)
            part.grow(grow_to, random)
        self.apply()


class Filters:
    """Channels of conv2 (bn2, inputs of conv3) and of conv3 (bn3, inputs of fc)."""

    GROUPS = (("conv2.weight", "bn2", "conv3.weight"), ("conv3.weight", "bn3", "fc.weight"))

    def __init__(self, net, scheme, sparsity):
        self.net, self.by_reader = net, scheme == "channel"
        self.active = [torch.ones(64, dtype=torch.bool) for _ in self.GROUPS]
        scores = [self.score(g) for g in range(2)]  # both of the whole file
        for g in range(2):
            self.keep(g, sparsity, scores[g])
        self.apply()

    def score(self, g):
        """The norm of what makes a channel (filter), or of what reads it (channel)."""
        w = self.net.w[self.GROUPS[g][2 if self.by_reader else 0]].detach()
        return (w.transpose(0, 1) if self.by_reader else w).flatten(1).norm(dim=1)

    def keep(self, g, sparsity, score):
        self.active[g] = remove_balanced(score, self.active[g], torch.zeros(64, dtype=torch.long), 1, rounded((1 - sparsity) * 64))

    def apply(self):
        a, b = (m.float() for m in self.active)
        self.net.mask = {"conv2.weight": a[:, None, None, None].expand(64, 32, 3, 3), "conv3.weight": b[:, None, None, None] * a[None, :, None, None].expand(64, 64, 3, 3),
                         "fc.weight": b[None, :].expand(10, 64), "bn2.weight": a, "bn2.bias": a, "bn3.weight": b, "bn3.bias": b}
        self.net.apply()

    def mutate(self, prune_to, grow_to, random):
        scores = [self.score(g) for g in range(2)]
        for g, (maker, norm, reader) in enumerate(self.GROUPS):
            self.keep(g, prune_to, scores[g])
            self.active[g], new = grow_balanced(self.active[g], torch.zeros(64, dtype=torch.long), 1, rounded((1 - grow_to) * 64), random)
            with torch.no_grad():
                for c in new:
                    w = self.net.w[maker]
                    inputs = int(self.active[0].sum()) if maker == "conv3.weight" else w.shape[1]
                    w[c] = torch.from_numpy(random.uniform(-1, 1, w[c].shape).astype("f")) * math.sqrt(6 / (inputs * 9))
                    self.net.w[reader][:, c] = 0
                    self.net.w[f"{norm}.weight"][c], self.net.w[f"{norm}.bias"][c] = 1, 0
                    self.net.s[f"{norm}.running_mean"][c], self.net.s[f"{norm}.running_var"][c] = 0, 1
                    for name in (maker, f"{norm}.weight", f"{norm}.bias"):
                        self.net.momentum[name][c] = 0
                    self.net.momentum[reader][:, c] = 0
        self.apply()


def masked(path, scheme, method, sparsity, data, seed):
    random = numpy.random.default_rng(seed)
    x, y, vx, vy = (torch.from_numpy(a) for a in data)
    net = Network(path)
    part = Filters(net, scheme, sparsity) if scheme in ("filter", "channel") else Weights(net, scheme, sparsity)
    for epoch in range(EPOCHS):
        rate, bound = STAGES[method][sum(epoch >= b * EPOCHS for b in BOUNDARIES)]
        if method != "static":
            part.mutate(sparsity + rate * (1 - sparsity), sparsity - bound, random)
        lr = LR * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        order = random.permutation(len(x))
        for at in range(0, len(x), BATCH):
            net.step(x[order[at:at + BATCH]], y[order[at:at + BATCH]], lr)
    with torch.no_grad():
        out = net(vx, False)
        return 100 * float((out.argmax(1) == vy).float().mean()), float(F.cross_entropy(out, vy))


def ours(program, path, scheme, method, sparsity, folder, seed):
    command = [program, path, "--train", "--data", f"npy:{folder}/x.npy,{folder}/y.npy", "--val", f"npy:{folder}/vx.npy,{folder}/vy.npy",
               "--epochs", str(EPOCHS), "-b", str(BATCH), "--lr", str(LR), "--momentum", str(MOMENTUM), "--weight-decay", "0", "--sched", "cosine",
               "--sparsity", str(sparsity), "--scheme", scheme, "--method", method, "--mutate-every", "1", "--seed", str(seed), "-t", "1",
               "--no-eval-before", "--json", "-o", f"{folder}/out.onnx"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-500:]}")
    after = next(e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "summary")["after"]
    return 100 * after["accuracy"], after["loss"]


def read_digits(folder):
    with gzip.open(pathlib.Path(folder, "digits.csv.gz"), "rt") as f:
        rows = numpy.array([[float(v) for v in line.split(",")] for line in f if line[0].isdigit()], dtype=numpy.float32)
    x, y = rows[:, :64].reshape(-1, 1, 8, 8) / 16, rows[:, 64].astype(numpy.int64)
    order = numpy.random.default_rng(0).permutation(len(x))
    first, rest = order[:TRAIN], order[TRAIN:]
    return x[first], y[first], x[rest], y[rest]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mest_run")
    parser.add_argument("examples")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--schemes", default=",".join(SPARSITY))
    parser.add_argument("--methods", default="mest-em")
    parser.add_argument("--sparsity", type=float, help="of all schemes, instead of their own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_digits(args.examples)
    path = str(pathlib.Path(args.examples, "digits_cnn.onnx"))
    apart = 0
    print("| scheme | method | sparsity | mest-run % | PyTorch % | difference / standard error | mest-run loss | PyTorch loss | difference / standard error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, a in zip(("x", "y", "vx", "vy"), data):
            numpy.save(f"{folder}/{name}.npy", a)
        for scheme, method in ((s, m) for s in args.schemes.split(",") for m in args.methods.split(",")):
            sparsity = args.sparsity or SPARSITY[scheme]
            runs = [[ours(args.mest_run, path, scheme, method, sparsity, folder, seed) for seed in range(1, args.seeds + 1)],
                    [masked(path, scheme, method, sparsity, data, seed) for seed in range(1, args.seeds + 1)]]
            cells = []
            for k in range(2):
                a, b = ([r[k] for r in side] for side in runs)
                error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / args.seeds)
                z = (statistics.mean(a) - statistics.mean(b)) / error if error else 0
                apart += abs(z) > 3
                digits = 2 if k == 0 else 4
                cells += [f"{statistics.mean(a):.{digits}f} +- {statistics.stdev(a):.{digits}f}", f"{statistics.mean(b):.{digits}f} +- {statistics.stdev(b):.{digits}f}", f"{z:+.1f}"]
            print(f"| {scheme} | {method} | {sparsity:g} | {' | '.join(cells)} |", flush=True)
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
