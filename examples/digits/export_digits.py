#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exports digits_cnn.onnx: a small, untrained convolutional network for 1x8x8 images, 10 classes.

Made with PyTorch 2.13; needs torch and onnx. The weights are PyTorch's usual initialisation from a fixed seed.
The export call is the one recommended for training: training form of BatchNormalization, nothing folded into the weights, dynamic batch.
usage: export_digits.py [OUTPUT]      default: digits_cnn.onnx beside this script
"""
import io
import pathlib
import sys
from collections import OrderedDict

import onnx
import torch
from torch import nn


def block(i, c_in, c_out):
    return {f"conv{i}": nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), f"bn{i}": nn.BatchNorm2d(c_out), f"relu{i}": nn.ReLU()}


def digits_cnn():
    return nn.Sequential(OrderedDict(
        **block(1, 1, 32), **block(2, 32, 64), pool=nn.MaxPool2d(2), **block(3, 64, 64),
        mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(64, 10),
    ))


def strip_traces(model):
    """Doc strings hold the exporting machine's source paths; metadata of nodes holds module paths. Neither belongs into the file."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]


def main():
    torch.manual_seed(1)
    network = digits_cnn().train()
    buffer = io.BytesIO()
    torch.onnx.export(
        network, torch.zeros(2, 1, 8, 8), buffer,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, opset_version=17, dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "digits_cnn.onnx"
    output.write_bytes(model.SerializeToString())
    print(f"{output}: {sum(p.numel() for p in network.parameters())} parameters, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
