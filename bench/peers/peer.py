#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps of one peer, in a process of its own: peer.py KIND NET [options]

KIND: torch           PyTorch eager, dense
      torch-compiled  the same through torch.compile
      torch-masked    PyTorch with masks: weights and their gradients multiplied by 0 and 1
      sparseprop      PyTorch with SparseProp's layers where it finds them faster
      torch-infer     PyTorch eager, dense, inference
      ort-infer       ONNX Runtime, inference of the same network, BatchNormalization in its inference form
      ort             ONNX Runtime's on-device training (SGD without momentum: it has no other)

A number on standard input asks for so many steps; the answer is a list of their seconds. At the end of input: peak memory of the process.
Step = forward, cross-entropy, backward, SGD with momentum 0.9.
"""
import argparse
import io
import json
import os
import pathlib
import sys
import tempfile
import time


def high_water():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_high_water():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def masks_of(network, sparsity):
    import torch

    from nets import prunable

    masks = []
    with torch.no_grad():
        for _, layer in prunable(network)[0]:
            w = layer.weight
            kept = max(1, round(w.numel() * (1 - sparsity)))
            mask = torch.zeros(w.numel())
            mask[w.abs().flatten().topk(kept).indices] = 1
            masks.append((w, mask.reshape(w.shape)))
            w.mul_(masks[-1][1])
    return masks


def torch_step(args):
    import torch
    from torch import nn

    from nets import build

    torch.set_num_threads(args.threads)
    network, shape, classes = build(args.net)
    inputs, targets = torch.randn(4, args.batch, *shape), torch.randint(0, classes, (4, args.batch))
    masks = masks_of(network, args.sparsity) if args.kind in ("torch-masked", "sparseprop") else []
    if args.kind == "sparseprop":
        from sparseprop.utils import swap_modules_with_sparse

        stdout, sys.stdout = sys.stdout, io.StringIO()  # it reports every layer
        network = swap_modules_with_sparse(network, (args.batch, *shape))
        sys.stdout, masks = stdout, []
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    forward = torch.compile(network) if args.kind == "torch-compiled" else network

    def step(i):
        optimizer.zero_grad()
        loss(forward(inputs[i % 4]), targets[i % 4]).backward()
        for weight, mask in masks:
            weight.grad.mul_(mask)
        optimizer.step()

    return step


def torch_inference(args):
    import torch

    from nets import build

    torch.set_num_threads(args.threads)
    network, shape, _ = build(args.net)
    network.eval()
    inputs = torch.randn(4, args.batch, *shape)

    def step(i):
        with torch.inference_mode():
            network(inputs[i % 4])

    return step


def ort_inference(args):
    import numpy
    import onnx
    import onnxruntime

    model = onnx.load(args.model)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":  # exported in training form
            del node.output[1:]
            for attribute in [a for a in node.attribute if a.name == "training_mode"]:
                node.attribute.remove(attribute)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    inputs = numpy.random.default_rng(1).standard_normal((4, args.batch, *shape), dtype=numpy.float32)
    name = session.get_inputs()[0].name
    return lambda i: session.run(None, {name: inputs[i % 4]})


def ort_step(args):
    import numpy
    import onnx
    from onnxruntime import SessionOptions
    from onnxruntime.training import artifacts
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    model = onnx.load(args.model)
    names = [i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
    statistics = {n for node in model.graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
    learned = [n for n in names if n not in statistics]
    with tempfile.TemporaryDirectory() as folder:
        artifacts.generate_artifacts(model, requires_grad=learned, frozen_params=[n for n in names if n in statistics], loss=artifacts.LossType.CrossEntropyLoss,
                                     optimizer=artifacts.OptimType.SGD, artifact_directory=folder)
        options = SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        folder = pathlib.Path(folder)
        state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
        module = Module(str(folder / "training_model.onnx"), state, None, device="cpu", session_options=options)
        optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(1e-4)
    module.train()
    random = numpy.random.default_rng(1)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    inputs = random.standard_normal((4, args.batch, *shape), dtype=numpy.float32)
    targets = random.integers(0, classes, (4, args.batch))

    def step(i):
        module(inputs[i % 4], targets[i % 4])
        optimizer.step()
        module.lazy_reset_grad()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["torch", "torch-compiled", "torch-masked", "torch-infer", "sparseprop", "ort", "ort-infer"])
    parser.add_argument("net")
    parser.add_argument("--model", help="the network as ONNX (ort)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like
    if args.kind == "ort":
        import onnxruntime  # noqa: F401  what importing it takes is not the step's
        import onnxruntime.training.api  # noqa: F401
    elif args.kind == "ort-infer":
        import onnxruntime  # noqa: F401
    else:
        import torch  # noqa: F401
    forget_high_water()
    before = high_water()
    makers = {"ort": ort_step, "ort-infer": ort_inference, "torch-infer": torch_inference}
    step = makers.get(args.kind, torch_step)(args)
    if args.kind == "ort":
        forget_high_water()  # the training graph is made once, ahead of time
    clock, done = time.process_time if args.cpu_time else time.perf_counter, 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = clock()
            step(done)
            seconds.append(clock() - start)
            done += 1
        print(json.dumps(seconds), file=answers, flush=True)
    print(json.dumps({"before_bytes": before, "peak_bytes": high_water()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
