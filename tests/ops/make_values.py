#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes values.h: operators' inputs and outputs as PyTorch computes them (in double). Usage: make_values.py > values.h"""
import numpy as np
import torch
import torch.nn.functional as F

torch.manual_seed(1)
arrays, cases = [], []


def t(*shape):
    """Random values with few digits, so that the file stays small and exact."""
    return torch.randint(-40, 41, shape).double() / 16


def ints(v):
    return "{ %d, (const int64_t[]){ %s } }" % (len(v), ", ".join(map(str, v)))


def number(x, is_int):
    return str(int(x)) if is_int else ("%.9g" % x)


def tensor(x):
    x = torch.as_tensor(x)
    is_int = x.dtype in (torch.int64, torch.bool)
    flat = [number(v, is_int) for v in x.flatten().tolist()]
    name = "v%d" % len(arrays)
    text = "static const double %s[] = { " % name
    lines, line = [], text
    for v in flat:
        if len(line) + len(v) > 136:
            lines.append(line.rstrip())
            line = "    "
        line += v + ", "
    arrays.append("\n".join(lines + [line.rstrip(", ") + " };"]))
    dtype = {torch.int64: "MEST_I64", torch.bool: "MEST_BOOL"}.get(x.dtype, "MEST_F32")
    return "{ %s, { %d, { %s } }, %s }" % (dtype, x.dim(), ", ".join(map(str, x.shape)) or "0", name)


def case(op, name, params, inputs, outputs, opset=0):
    ins, outs = [tensor(x) for x in inputs], [tensor(x) for x in outputs]
    cases.append('    { "%s", "%s", %d, %s,\n      %d, { %s },\n      %d, { %s } },' %
                 (op, name, opset, params or "NULL", len(ins), ", ".join(ins), len(outs), ", ".join(outs)))


def conv_params(group=1, **kw):
    fields = [".group = %d" % group]
    for k, v in kw.items():
        fields.append(".%s = %s" % (k, '"%s"' % v if isinstance(v, str) else ints(v)))
    return "&(const mest_conv_params){ %s }" % ", ".join(fields)


x, w, b = t(2, 4, 5, 4), t(4, 2, 3, 2), t(4)
case("Conv", "grouped, strided, dilated", conv_params(2, strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2]), [x, w, b],
     [F.conv2d(x, w, b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2)])
x, w = t(1, 2, 7), t(3, 2, 3)
case("Conv", "one axis, uneven pads", conv_params(pads=[2, 0], strides=[2]), [x, w], [F.conv1d(F.pad(x, (2, 0)), w, stride=2)])
x, w, b = t(1, 2, 3, 3, 4), t(2, 2, 2, 2, 2), t(2)
case("Conv", "three axes", conv_params(strides=[1, 2, 1], pads=[1, 1, 0, 1, 1, 0]), [x, w, b], [F.conv3d(x, w, b, stride=(1, 2, 1), padding=(1, 1, 0))])
x, w = t(1, 1, 5, 4), t(2, 1, 2, 3)
case("Conv", "SAME_UPPER", conv_params(auto_pad="SAME_UPPER", strides=[2, 2]), [x, w], [F.conv2d(F.pad(x, (0, 1, 0, 1)), w, stride=2)])
case("Conv", "SAME_LOWER", conv_params(auto_pad="SAME_LOWER", strides=[2, 2]), [x, w], [F.conv2d(F.pad(x, (1, 0, 1, 0)), w, stride=2)])
x, w = t(2, 3, 4, 4), t(3, 1, 3, 3)
case("Conv", "depthwise", conv_params(3, pads=[1, 1, 1, 1]), [x, w], [F.conv2d(x, w, padding=1, groups=3)])
x, w, b = t(1, 4, 3, 2), t(4, 2, 3, 3), t(4)
case("ConvTranspose", "grouped, output_padding", conv_params(2, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]), [x, w, b],
     [F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2)])
x, w = t(1, 2, 3, 3), t(2, 1, 2, 2)
case("ConvTranspose", "dilated", conv_params(strides=[1, 2], dilations=[2, 1]), [x, w], [F.conv_transpose2d(x, w, stride=(1, 2), dilation=(2, 1))])
full = F.conv_transpose2d(x, t(2, 1, 3, 3) * 0 + 1, stride=2)  # 7x7
case("ConvTranspose", "output_shape", conv_params(strides=[2, 2], output_shape=[6, 6]), [x, torch.ones(2, 1, 3, 3).double()], [full[:, :, 1:, 1:]])
case("ConvTranspose", "SAME_UPPER", conv_params(strides=[2, 2], auto_pad="SAME_UPPER"), [x, torch.ones(2, 1, 3, 3).double()], [full[:, :, :6, :6]])

a, b, c = t(3, 4), t(5, 4), t(5)
case("Gemm", "alpha, beta, B transposed", "&(const mest_gemm_params){ 0.5, 2, 0, 1 }", [a, b, c], [0.5 * a @ b.T + 2 * c])
a, c = t(4, 3), t(3, 1)
case("Gemm", "A transposed, column", "&(const mest_gemm_params){ 1, 1, 1, 1 }", [a, b, c], [a.T @ b.T + c])
for sa, sb in (((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((2, 1, 2, 3), (2, 3, 2)), ((2, 2, 3), (3, 2))):
    a, b = t(*sa), t(*sb)
    case("MatMul", "%s x %s" % (list(sa), list(sb)), None, [a, b], [torch.matmul(a, b)])


def pool_params(kernel, include=0, **kw):
    fields = [".kernel_shape = " + ints(kernel), ".count_include_pad = %d" % include]
    for k, v in kw.items():
        fields.append(".%s = %s" % (k, v if isinstance(v, int) else '"%s"' % v if isinstance(v, str) else ints(v)))
    return "&(const mest_pool_params){ %s }" % ", ".join(fields)


x = t(1, 2, 6, 5)
case("MaxPool", "padded, ceil_mode", pool_params([3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1), [x], [F.max_pool2d(x, 3, 2, 1, ceil_mode=True)])
case("MaxPool", "last window starts in the padding", pool_params([2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1), [x],
     [F.max_pool2d(x, 2, 3, 1, ceil_mode=True)])
case("MaxPool", "dilated", pool_params([2, 2], dilations=[2, 3]), [x], [F.max_pool2d(x, 2, 1, dilation=(2, 3))])
case("MaxPool", "one axis", pool_params([3], strides=[2]), [x[0]], [F.max_pool1d(x[0], 3, 2)])
case("AveragePool", "padding left out", pool_params([3, 2], strides=[2, 2], pads=[1, 1, 1, 1]), [x],
     [F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=False)])
case("AveragePool", "padding counts, ceil_mode", pool_params([3, 3], 1, strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1), [x],
     [F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=True)])
x5 = t(1, 1, 3, 4, 3)
case("AveragePool", "three axes", pool_params([2, 2, 2], strides=[1, 2, 1]), [x5], [F.avg_pool3d(x5, 2, (1, 2, 1))])
case("GlobalAveragePool", "image", None, [x], [x.mean((2, 3), keepdim=True)])
case("GlobalMaxPool", "image", None, [x], [x.amax((2, 3), keepdim=True)])

x, s, b, mean, var = t(3, 2, 2, 2), t(2), t(2), t(2), t(2).abs() + 0.5
case("BatchNormalization", "running statistics", "&(const mest_bn_params){ .epsilon = 1e-3, .momentum = 0.9, .spatial = 1 }", [x, s, b, mean, var],
     [F.batch_norm(x, mean, var, s, b, False, 0.1, 1e-3)])
# the last two outputs are what inputs 3 and 4 hold afterwards
rm, rv = mean.clone(), var.clone()
y = F.batch_norm(x, rm, rv, s, b, True, 0.3, 1e-3)
invstd = 1 / (x.var((0, 2, 3), unbiased=False) + 1e-3).sqrt()
to_y = torch.stack([torch.zeros(2).double(), s * invstd, b - x.mean((0, 2, 3)) * s * invstd])  # y = (x - [0]) [1] + [2]
case("mest.BatchNormTrain", "PyTorch's running statistics", "&(const mest_bn_params){ .epsilon = 1e-3, .momentum = 0.7, .spatial = 1 }", [x, s, b, mean, var],
     [y, x.mean((0, 2, 3)), invstd, to_y, rm, rv])
case("mest.BatchNormAgain", "the map of a training step", "&(const mest_bn_params){ .epsilon = 1e-3, .momentum = 0.7, .spatial = 1 }", [x, to_y], [y])
x, s, b = t(2, 2, 3), t(2, 3), t(2, 3)
m = x.mean((1, 2), keepdim=True)
case("LayerNormalization", "two axes", "&(const mest_norm_params){ 1, 1e-3, 1 }", [x, s, b],
     [F.layer_norm(x, (2, 3), s, b, 1e-3), m, 1 / (x.var((1, 2), unbiased=False, keepdim=True) + 1e-3).sqrt()])
x, s, b = t(2, 4, 2, 2), t(4), t(4)
case("InstanceNormalization", "image", "&(const groupnorm_params){ 1e-3, 0, 1 }", [x, s, b], [F.instance_norm(x, weight=s, bias=b, eps=1e-3)])
case("GroupNormalization", "two groups", "&(const groupnorm_params){ 1e-3, 2, 1 }", [x, s, b], [F.group_norm(x, 2, s, b, 1e-3)])
case("LRN", "size 3", "&(const lrn_params){ 0.3, 0.6, 1.5, 3 }", [x], [F.local_response_norm(x, 3, 0.3, 0.6, 1.5)])

x = t(2, 3, 4)
case("Softmax", "axis 1", "&(const mest_softmax_params){ 1, 0 }", [x], [x.softmax(1)])
case("Softmax", "opset 11 flattens", "&(const mest_softmax_params){ 1, 1 }", [x], [x.flatten(1).softmax(1).view(2, 3, 4)], 11)
case("LogSoftmax", "large values", "&(const mest_softmax_params){ -1, 0 }", [x * 100], [(x * 100).log_softmax(-1)])
big = torch.cat([t(4, 3), torch.full((1, 3), 500.0).double()]) + torch.arange(3) / 8
for x, target, axis, eps in ((big, torch.tensor([0, 2, 1, 1, 0]), 1, 0.0), (t(2, 4, 3), torch.randint(0, 4, (2, 3)), 1, 0.1)):
    rows = F.cross_entropy(x, target, reduction="none", label_smoothing=eps)
    case("mest.SoftmaxCrossEntropy", "smoothing %g" % eps, "&(const mest_ce_params){ { %g, %d }, false, 0 }" % (eps, axis), [x, target],
         [rows.mean(), rows.flatten(), (x.argmax(1) == target).flatten()])
x, target = t(3, 2, 2), t(3, 2, 2)
case("mest.MSELoss", "image", "&(const mest_loss_params){ 0, -1 }", [x, target], [F.mse_loss(x, target), ((x - target)**2).mean((1, 2))])
x, target = t(4, 2) * 20, torch.rand(4, 2).double()
target = (target * 16).round() / 16
rows = F.binary_cross_entropy_with_logits(x, target, reduction="none")
case("mest.BCELoss", "large logits", "&(const mest_loss_params){ 0, -1 }", [x, target], [rows.mean(), rows.mean(1)])

print("/* SPDX-License-Identifier: Apache-2.0 */")
print("/* Made by make_values.py with PyTorch %s; do not edit. */" % torch.__version__.split("+")[0])
print("\n".join(arrays))
print("\nstatic const value_case value_cases[] = {")
print("\n".join(cases))
print("};")
