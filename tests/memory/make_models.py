#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the small networks of the memory tests: make_models.py FOLDER (needs torch and onnx; the results are committed).

  residual  convolutions, batch normalisation, additions: what recomputation meets in a ResNet
  dropout   convolutions, dropout, dense layers, no batch normalisation: micro-batches give the gradient of the whole batch
  mixer     layer normalisation, softmax attention over 16 tokens, dropout
"""
import pathlib
import sys
import warnings

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, c_in, c, stride):
        super().__init__()
        self.a, self.na = nn.Conv2d(c_in, c, 3, stride, 1, bias=False), nn.BatchNorm2d(c)
        self.b, self.nb = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.short = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False), nn.BatchNorm2d(c)) if c_in != c else nn.Identity()

    def forward(self, x):
        return torch.relu(self.nb(self.b(torch.relu(self.na(self.a(x))))) + self.short(x))


def residual():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 8, 1), Block(8, 8, 1), Block(8, 8, 1),
                         Block(8, 16, 2), Block(16, 16, 1), Block(16, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def dropout():
    layers, c = [], 3
    for i in range(6):
        layers += [nn.Conv2d(c, 12, 3, 1, 1), nn.ReLU(), nn.Dropout(0.2)]
        c = 12
        if i == 3:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 64, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 10))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.q, self.k, self.v, self.o = nn.LayerNorm(width), *(nn.Linear(width, width) for _ in range(4))
        self.norm2, self.up, self.down, self.drop = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.Dropout(0.1)

    def forward(self, x):
        y = self.norm1(x)
        w = torch.softmax(self.q(y) @ self.k(y).transpose(1, 2) * 0.25, -1)
        x = x + self.drop(self.o(w @ self.v(y)))
        return x + self.drop(self.down(torch.nn.functional.gelu(self.up(self.norm2(x)))))


class Mixer(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.patch, self.blocks, self.head = nn.Conv2d(3, width, 4, 4), nn.Sequential(*(Attention(width) for _ in range(4))), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, make in (("residual", residual), ("dropout", dropout), ("mixer", Mixer)):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(make().train(), torch.zeros(2, 3, 16, 16), str(folder / f"{name}.onnx"), input_names=["input"], output_names=["logits"],
                              dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, training=torch.onnx.TrainingMode.TRAINING,
                              do_constant_folding=False, opset_version=17, dynamo=False)


if __name__ == "__main__":
    main()
