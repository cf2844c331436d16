#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exports the networks of nets.py for the comparison: make_models.py FOLDER [NAME ...]

Needs torch and onnx. The export is the one recommended for training: training form, nothing folded, dynamic batch, opset 17.
The files are made where they are used and not committed.
"""
import argparse
import pathlib
import warnings

import torch

from nets import NETS, build


def export(name, path):
    network, shape, _ = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, torch.zeros(2, *shape), str(path), input_names=["input"], output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, opset_version=17, dynamo=False,
        )
    print(f"{path}: {sum(p.numel() for p in network.parameters())} parameters, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", choices=[[], *NETS], help=", ".join(NETS) + "; default: all")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.names or NETS:
        export(name, args.folder / f"{name}.onnx")


if __name__ == "__main__":
    main()
