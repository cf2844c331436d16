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


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times the channels at the end; the shortcut is a strided 1x1 convolution where the shape changes."""

    def __init__(self, c_in, width, stride):
        super().__init__()
        c_out = 4 * width
        self.body = nn.Sequential(*conv_bn(c_in, width, 1), *conv_bn(width, width, 3, stride), *conv_bn(width, c_out, 1, act=None))
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(c_in, c_out, 1, stride, act=None))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.shortcut(x))


def resnet_imagenet(block, counts, classes):
    """The ResNets of He et al. for ImageNet: a strided 7x7 convolution and a pooling first; ResNet-18 with Residual, ResNet-50 with Bottleneck."""
    layers, c = conv_bn(3, 64, 7, 2) + [nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(counts):
        width = 64 << stage
        for i in range(count):
            layers.append(block(c, width, 2 if stage and i == 0 else 1))
            c = width * (4 if block is Bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))


class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """ViT-tiny on 32x32 images: patches of 4x4 and a class token make 65 tokens."""

    def __init__(self, width=192, depth=12, heads=3, classes=10):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


NETS = {
    "resnet20": (lambda: resnet(3, (16, 32, 64)), (3, 32, 32), 10),
    "resnet32w": (lambda: resnet(5, (32, 64, 128)), (3, 32, 32), 10),  # the wide ResNet-32 of the MEST paper
    "resnet18": (lambda: resnet_imagenet(Residual, (2, 2, 2, 2), 200), (3, 64, 64), 200),
    "resnet50": (lambda: resnet_imagenet(Bottleneck, (3, 4, 6, 3), 1000), (3, 128, 128), 1000),
    "mobilenetv2": (mobilenet_v2, (3, 96, 96), 10),
    "mobilenetv2x1": (lambda: mobilenet_v2(1.0), (3, 96, 96), 10),
    "vittiny": (Vit, (3, 32, 32), 10),
    "lenet300": (lenet_300_100, (1, 28, 28), 10),
    "lenet5": (lenet_5, (1, 28, 28), 10),
    "dscnn": (ds_cnn, (1, 49, 10), 12),
}


def build(name):
    torch.manual_seed(1)
    make, shape, classes = NETS[name]
    return make().train(), shape, classes


def prunable(network):
    """(name, layer) of what the comparison prunes: all convolutions and matrix products but a first convolution, the last layer and grouped
    convolutions; and the names of the others."""
    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    first = 1 if isinstance(layers[0][1], nn.Conv2d) else 0
    pruned = [(name, m) for name, m in layers[first:-1] if not (isinstance(m, nn.Conv2d) and m.groups > 1)]
    kept = {name for name, _ in layers} - {name for name, _ in pruned}
    return pruned, sorted(kept)
