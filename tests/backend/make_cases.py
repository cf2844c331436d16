#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes conformance cases that the system's test data lacks, in its folder form: recurrent layers in every direction with lengths and
states (ONNX Runtime), operators newer than the data (the reference evaluator of the onnx package), einsum forms (both). Usage:
make_cases.py FOLDER [PATTERN]: PATTERN writes only the cases whose names begin with it. Needs the Python packages onnx, onnxruntime and numpy; the cases are small and committed."""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

root, pattern = pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
rng = np.random.default_rng(7)


def real(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def case(name, op, inputs, n_out, opset, reference=False, **attributes):
    """inputs: arrays, None for absent ones."""
    if not name.startswith(pattern):
        return
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    present = [(n, x) for n, x in zip(names, inputs) if n]
    outs = [f"y{i}" for i in range(n_out)]
    node = helper.make_node(op, names, outs, **attributes)
    values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in present]
    graph = helper.make_graph([node], name, values, [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)
    if reference:
        results = ReferenceEvaluator(model).run(None, dict(present))
    else:
        results = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, dict(present))
    for value, result in zip(graph.output, results):
        value.CopyFrom(helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(result.dtype), result.shape))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)
    folder = root / "node" / name / "test_data_set_0"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder.parent / "model.onnx")
    for kind, arrays in (("input", present), ("output", list(zip(outs, results)))):
        for i, (n, x) in enumerate(arrays):
            (folder / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(np.asarray(x), n).SerializeToString())


T, N, I, H = 5, 3, 4, 3
lengths = np.array([5, 2, 3], np.int32)
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        for linear in (0, 1) if op == "GRU" else (0,):
            for lens in (None, lengths):
                inputs = [real(T, N, I), real(d, gates * H, I), real(d, gates * H, H), real(d, 2 * gates * H), lens, real(d, N, H)]
                extra = {"linear_before_reset": linear} if op == "GRU" else {}
                if op == "LSTM":
                    inputs += [real(d, N, H), real(d, 3 * H) if lens is not None else None]
                    inputs = inputs if inputs[-1] is not None else inputs[:-1]
                name = f"{op.lower()}_{direction}" + ("_linear" if linear else "") + ("_lengths" if lens is not None else "")
                case(name, op, inputs, 3 if op == "LSTM" else 2, 14, hidden_size=H, direction=direction, **extra)
case("rnn_relu", "RNN", [real(T, N, I), real(1, H, I), real(1, H, H)], 2, 14, hidden_size=H, activations=["Relu"])
case("lstm_wide", "LSTM", [real(3, 19, 5), real(2, 4 * 21, 5), real(2, 4 * 21, 21), real(2, 8 * 21)], 3, 14, hidden_size=21, direction="bidirectional")

for i, (equation, *shapes) in enumerate([
        ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)), ("bhqk,bkhd->bqhd", (2, 2, 3, 4), (2, 4, 2, 5)), ("ij,kj->ki", (5, 3), (4, 3)),
        ("i,j->ij", (9,), (10,)), ("...ij,...jk->...ik", (2, 1, 3, 2), (3, 2, 4)), ("abc,cd", (2, 3, 4), (4, 5)), ("ba", (2, 3)),
        ("iij,jk->ki", (3, 3, 2), (2, 4)), ("nchw,co->nohw", (2, 3, 4, 4), (3, 5)), ("abc,d->ad", (2, 3, 2), (9,))]):
    case(f"einsum_{i}", "Einsum", [real(*s) for s in shapes], 1, 13, equation=equation, reference=True)

x = real(2, 3, 8)
case("rms_last", "RMSNormalization", [x, real(8)], 1, 23, reference=True)
case("rms_two", "RMSNormalization", [x, real(3, 8)], 1, 23, reference=True, axis=1, epsilon=1e-3)
q, k, v = real(2, 2, 3, 4), real(2, 2, 5, 4), real(2, 2, 5, 6)
case("attention", "Attention", [q, k, v], 1, 23, reference=True)
case("attention_scale_causal", "Attention", [q, k, v], 1, 23, reference=True, scale=0.3, is_causal=1)
case("attention_mask", "Attention", [q, k, v, real(3, 5)], 1, 23, reference=True)
case("attention_bool", "Attention", [q, k, v, np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], bool)], 1, 23, reference=True)
case("attention_shared_heads", "Attention", [real(2, 4, 3, 4), k, v], 1, 23, reference=True)
case("attention_3d", "Attention", [real(2, 3, 8), real(2, 5, 8), real(2, 5, 6)], 1, 23, reference=True, q_num_heads=2, kv_num_heads=2)
case("gelu_none", "Gelu", [x], 1, 20, reference=True)
case("gelu_tanh", "Gelu", [x], 1, 20, reference=True, approximate="tanh")
case("lppool_3", "LpPool", [real(1, 2, 6, 5)], 1, 18, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 1], p=3)
case("globallppool", "GlobalLpPool", [real(2, 2, 3, 4)], 1, 13, p=2)
case("scatternd_add", "ScatterND", [real(3, 4), np.array([[1, 0], [2, 3], [1, 0]], np.int64), real(3)], 1, 16, reduction="add")

x = real(1, 2, 5, 6)
for mode in ("linear", "cubic"):
    for h, w in ((3, 2), (2, 9)):
        case(f"late_resize_antialias_{mode}_{h}_{w}", "Resize", [x, None, None, np.array([1, 2, h, w])], 1, 18, mode=mode, antialias=1)
    case(f"late_resize_antialias_{mode}_inside", "Resize", [x, None, None, np.array([1, 2, 2, 3])], 1, 18, mode=mode, antialias=1, exclude_outside=1, cubic_coeff_a=-0.5)
tables, at = [real(5, 3), real(5, 3)], np.array([[0, 1, 2, 4], [1, 3, 3, 0]])
case("late_rope", "RotaryEmbedding", [real(2, 2, 4, 6), *tables, at], 1, 23, reference=True)
case("late_rope_pairs", "RotaryEmbedding", [real(2, 4, 12), *tables, at], 1, 23, reference=True, num_heads=2, interleaved=1)
case("late_rope_part", "RotaryEmbedding", [real(2, 2, 4, 6), real(2, 4, 2), real(2, 4, 2)], 1, 23, reference=True, rotary_embedding_dim=4)
for align in (0, 1):
    case(f"late_affine_grid_{align}", "AffineGrid", [real(2, 2, 3), np.array([2, 3, 4, 5])], 1, 20, reference=True, align_corners=align)
    case(f"late_affine_grid_3_{align}", "AffineGrid", [real(2, 3, 4), np.array([2, 1, 2, 3, 4])], 1, 20, reference=True, align_corners=align)
case("late_col2im", "Col2Im", [real(2, 8, 6), np.array([4, 3]), np.array([2, 2])], 1, 18, reference=True)
case("late_col2im_wide", "Col2Im", [real(1, 8, 2), np.array([5, 5]), np.array([2, 2])], 1, 18, reference=True, strides=[3, 2], pads=[1, 0, 1, 0], dilations=[2, 3])
for mode in ("linear", "nearest"):
    case(f"late_grid_3_{mode}", "GridSample", [real(1, 2, 3, 4, 5), real(1, 2, 3, 2, 3) * 1.2], 1, 20, reference=True, mode=mode)
for op in ("And", "Or", "Xor"):
    case(f"late_bitwise_{op.lower()}", f"Bitwise{op}", [np.array([[1, 2, -3]], np.int32), np.array([[3], [6]], np.int32)], 1, 18, reference=True)
case("late_bitwise_not", "BitwiseNot", [np.array([1, 200], np.uint8)], 1, 18, reference=True)

x = real(2, 3, 4)
case("late_layernorm_broadcast", "LayerNormalization", [x, real(1, 4), real(3, 1)], 1, 17, reference=True, axis=1)
case("late_layernorm_one_bias", "LayerNormalization", [x, real(4), real(1)], 1, 17, reference=True)
case("late_rms_broadcast", "RMSNormalization", [x, real(4)], 1, 23, reference=True, axis=1)
for p in (1, 2):
    case(f"late_lp_normalization_{p}", "LpNormalization", [x, ], 1, 13, axis=1, p=p)
case("late_mean_variance", "MeanVarianceNormalization", [real(2, 3, 4, 2)], 1, 13, reference=True, axes=[1, 2])
case("late_center_crop_pad", "CenterCropPad", [real(4, 5, 2), np.array([3, 8])], 1, 18, reference=True, axes=[0, 1])
case("late_dft_20", "DFT", [real(2, 5, 3, 1), np.array(7), np.array(1)], 1, 20, reference=True)
case("late_dft_inverse", "DFT", [real(2, 3, 8, 2), None, np.array(2)], 1, 20, reference=True, inverse=1)
case("late_dft_onesided", "DFT", [real(2, 9, 1), np.array(6)], 1, 20, reference=True, onesided=1)
q, k, v = real(2, 2, 3, 4), real(2, 2, 5, 4), real(2, 2, 5, 6)
case("late_attention_softcap", "Attention", [q, k, v], 1, 23, reference=True, softcap=2.0)
past = real(2, 2, 2, 4), real(2, 2, 2, 6)
case("late_attention_past", "Attention", [q, k, v, None, *past], 3, 23, reference=True)
T, N, I, H = 3, 2, 2, 2
cell = [real(T, N, I), real(1, 4 * H, I), real(1, 4 * H, H)]
case("late_lstm_clip", "LSTM", cell, 1, 14, hidden_size=H, clip=0.5)
case("late_lstm_input_forget", "LSTM", cell, 1, 14, hidden_size=H, input_forget=1)
case("late_lstm_activations", "LSTM", cell, 1, 14, hidden_size=H, activations=["HardSigmoid", "Tanh", "Tanh"])
case("late_rnn_activation", "RNN", [cell[0], real(1, H, I), real(1, H, H)], 1, 14, hidden_size=H, activations=["Softsign"])

rng = np.random.default_rng(8)
q4 = real(2, 4, 3, 4)  # four heads of Q share two of K
holes = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
blind = np.where(holes, real(3, 5), np.float32(-np.inf))
flat = [real(2, 3, 16), real(2, 5, 8), real(2, 5, 12)]
heads = {"q_num_heads": 4, "kv_num_heads": 2}
case("late_attention_past_causal", "Attention", [q4, k, v, None, *past], 3, 23, reference=True, is_causal=1)
case("late_attention_past_mask", "Attention", [q, k, v, real(3, 7), *past], 3, 23, reference=True)
case("late_attention_past_bool_causal", "Attention", [q4, k, v, np.concatenate([holes, holes[:, :2]], 1), *past], 1, 23, reference=True, is_causal=1)
case("late_attention_past_float_causal", "Attention", [q4, k, v, real(4, 3, 7), *past], 1, 23, reference=True, is_causal=1)
case("late_attention_past_flat", "Attention", [*flat, None, *past], 3, 23, reference=True, is_causal=1, **heads)
case("late_attention_present", "Attention", [*flat], 3, 23, reference=True, **heads)
for mode in range(4):
    case(f"late_attention_scores_{mode}", "Attention", [q4, k, v, blind, None, None], 4, 23, reference=True, is_causal=1, qk_matmul_output_mode=mode)
case("late_attention_scores_softcap", "Attention", [*flat, holes, *past], 4, 23, reference=True, softcap=1.5, qk_matmul_output_mode=1, **heads)
case("late_attention_scores_flat", "Attention", [*flat, holes, *past], 4, 23, reference=True, softcap=0.7, is_causal=1, qk_matmul_output_mode=3, scale=0.4, **heads)
case("late_attention_short_mask", "Attention", [q4, k, v, holes[:, :3]], 1, 24, reference=True)
case("late_attention_short_bias", "Attention", [q4, k, v, blind[:, :4]], 1, 24, reference=True)
case("late_attention_lengths", "Attention", [q4, k, v, None, None, None, np.array([4, 3])], 1, 24, reference=True)
case("late_attention_lengths_causal", "Attention", [q4, k, v, real(3, 5), None, None, np.array([5, 3])], 1, 24, reference=True, is_causal=1)

rng = np.random.default_rng(9)
T, N, I, H = 4, 3, 2, 5
lengths = np.array([4, 2, 3], np.int32)


def layer(gates, d):
    more = [real(d, 2 * gates * H), lengths, real(d, N, H)]
    return [real(T, N, I), real(d, gates * H, I), real(d, gates * H, H)] + more + ([real(d, N, H), real(d, 3 * H)] if gates == 4 else [])


case("late_cell_lstm_clip", "LSTM", layer(4, 2), 3, 14, hidden_size=H, clip=0.3, direction="bidirectional")
case("late_cell_lstm_coupled", "LSTM", layer(4, 1), 3, 14, hidden_size=H, input_forget=1, clip=0.8, direction="reverse")
case("late_cell_lstm_both", "LSTM", layer(4, 2), 3, 14, hidden_size=H, direction="bidirectional",
     activations=["HardSigmoid", "Softsign", "ScaledTanh", "Sigmoid", "LeakyRelu", "Tanh"], activation_alpha=[0.3, 1.7, 0.1], activation_beta=[0.4, 0.6])
for linear in (0, 1):
    case(f"late_cell_gru_clip_{linear}", "GRU", layer(3, 2), 2, 14, hidden_size=H, clip=0.4, direction="bidirectional", linear_before_reset=linear)
    case(f"late_cell_gru_{linear}", "GRU", layer(3, 1), 2, 14, hidden_size=H, linear_before_reset=linear, activations=["HardSigmoid", "Elu"],
         activation_alpha=[0.25, 0.5], activation_beta=[0.45])
for name, more in {"Softplus": {}, "Elu": {"activation_alpha": [0.6]}, "Affine": {"activation_alpha": [0.5], "activation_beta": [0.1]}, "LeakyRelu": {},
                   "ThresholdedRelu": {"activation_alpha": [0.2]}, "ScaledTanh": {"activation_alpha": [0.8], "activation_beta": [1.2]}, "Sigmoid": {}}.items():
    case(f"late_cell_rnn_{name.lower()}", "RNN", layer(1, 1), 2, 14, hidden_size=H, activations=[name], **more)
case("late_cell_rnn_relu_clip", "RNN", layer(1, 2), 2, 14, hidden_size=H, direction="bidirectional", activations=["Relu", "Tanh"], clip=0.6)

rng = np.random.default_rng(10)
past, update = real(2, 3, 5, 2), real(2, 3, 3, 2)
case("late_tensor_scatter", "TensorScatter", [past, update, np.array([1, 2])], 1, 24, reference=True)
case("late_tensor_scatter_first", "TensorScatter", [past, update], 1, 24, reference=True)
case("late_tensor_scatter_circular", "TensorScatter", [past, real(2, 3, 5, 1), np.array([4, 11])], 1, 24, reference=True, axis=3, mode="circular")
case("late_tensor_scatter_around", "TensorScatter", [past, update, np.array([4, 13])], 1, 24, reference=True, mode="circular")
x = rng.uniform(-3, 3, (4, 5)).astype(np.float32)
case("late_quantize_blocks", "QuantizeLinear", [x, rng.uniform(0.01, 0.1, (4, 3)).astype(np.float32), np.zeros((4, 3), np.int8)], 1, 21, reference=True, axis=1, block_size=2)
case("late_quantize_wide", "QuantizeLinear", [x, np.float32([0.01, 0.02, 0.001, 0.003, 0.1]), np.array([5, 0, 60000, 9, 300], np.uint16)], 1, 21, reference=True, axis=-1)
case("late_dequantize_blocks", "DequantizeLinear", [rng.integers(-128, 127, (4, 5)).astype(np.int8), rng.uniform(0.01, 0.1, (2, 5)).astype(np.float32)], 1, 21,
     reference=True, axis=0, block_size=3)

# A group's scale (opset 18) and a channel's (21); what the system's data lacks of single operators
for opset in (18, 21):
    case(f"late_group_{opset}", "GroupNormalization", [real(2, 6, 3, 2), real(3 if opset == 18 else 6), real(3 if opset == 18 else 6)], 1, opset, reference=True,
         num_groups=3, epsilon=1e-3)
case("late_swish", "Swish", [real(3, 7)], 1, 24, reference=True, alpha=1.7)
bits = rng.integers(0, 2, (3, 4)).astype(bool)
case("late_any", "ReduceMax", [bits, np.array([1])], 1, 20, reference=True, keepdims=0)
case("late_all", "ReduceMin", [bits, np.array([0])], 1, 20, reference=True)
