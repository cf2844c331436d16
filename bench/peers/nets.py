# SPDX-License-Identifier: Apache-2.0
"""The networks of the comparison, in PyTorch. NETS: name -> (constructor, shape of one sample, classes)."""
import torch
from torch import nn


def conv_bn(c_in, c_out, kernel, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(c_in, c_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)]
    return layers + [act()] if act else layers


class Residual(nn.Module):
    """Two 3x3 convolutions; the shortcut is a strided 1x1 convolution where the shape changes."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.body = nn.Sequential(*conv_bn(c_in, c_out, 3, stride), *conv_bn(c_out, c_out, 3, act=None))
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(c_in, c_out, 1, stride, act=None))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.shortcut(x))


def resnet(blocks, widths):
    layers, c = conv_bn(3, widths[0], 3), widths[0]
    for stage, width in enumerate(widths):
        for i in range(blocks):
            layers.append(Residual(c, width, 2 if stage and i == 0 else 1))
            c = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class Inverted(nn.Module):
    def __init__(self, c_in, c_out, stride, expand):
        super().__init__()
        hidden = c_in * expand
        widen = conv_bn(c_in, hidden, 1, act=nn.ReLU6) if expand > 1 else []
        self.body = nn.Sequential(*widen, *conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6), *conv_bn(hidden, c_out, 1, act=None))
        self.add = stride == 1 and c_in == c_out

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


def mobilenet_v2(width=0.35, classes=10):
    def scaled(c):
        return max(8, int(c * width + 4) // 8 * 8)

    layers, c = conv_bn(3, scaled(32), 3, 2, act=nn.ReLU6), scaled(32)
    for expand, channels, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(count):
            layers.append(Inverted(c, scaled(channels), stride if i == 0 else 1, expand))
            c = scaled(channels)
    return nn.Sequential(*layers, *conv_bn(c, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


def lenet_300_100():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def lenet_5():
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def ds_cnn(width=64, classes=12):
    """Keyword spotting: depthwise-separable convolutions on 49 frames of 10 coefficients."""
    layers = [nn.Conv2d(1, width, (10, 4), 2, (4, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(4):
        layers += conv_bn(width, width, 3, groups=width) + conv_bn(width, width, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


NETS = {
    "resnet20": (lambda: resnet(3, (16, 32, 64)), (3, 32, 32), 10),
    "resnet32w": (lambda: resnet(5, (32, 64, 128)), (3, 32, 32), 10),  # the wide ResNet-32 of the MEST paper
    "mobilenetv2": (mobilenet_v2, (3, 96, 96), 10),
    "lenet300": (lenet_300_100, (1, 28, 28), 10),
    "lenet5": (lenet_5, (1, 28, 28), 10),
    "dscnn": (ds_cnn, (1, 49, 10), 12),
}


def build(name):
    torch.manual_seed(1)
    make, shape, classes = NETS[name]
    return make().train(), shape, classes
