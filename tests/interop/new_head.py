# SPDX-License-Identifier: Apache-2.0
"""--new-head: the written file has the new number of classes for onnx and ONNX Runtime too, its outputs are those of --infer, only the head has
changed where all else is frozen, and it trains on. Usage: new_head.py MEST_RUN"""
import os
import sys

import common

numpy, onnx, runtime = common.need("numpy", "onnx", "onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES, OLD = 5, 11
random = numpy.random.default_rng(4)


def weight(name, *shape):
    return numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(numpy.float32), name)


def numbers(name, *values):
    return numpy_helper.from_array(numpy.array(values, dtype=numpy.int64), name)


def heads():
    """Name, nodes from 'r' [N,8,6,6] to 'y', initializers, shape of y but for the batch, other value_info."""
    node, pool = helper.make_node, helper.make_node("GlobalAveragePool", ["r"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["f"])
    yield "gemm, softmax", [pool, flat, node("Gemm", ["f", "w", "b"], ["z"], transB=1), node("Softmax", ["z"], ["y"])], \
        [weight("w", OLD, 8), weight("b", OLD)], [OLD], {"z": [OLD], "f": [8]}
    yield "gemm of the other orientation", [pool, flat, node("Gemm", ["f", "w", "b"], ["y"])], [weight("w", 8, OLD), weight("b", OLD)], [OLD], {}
    yield "matmul and add", [pool, flat, node("MatMul", ["f", "w"], ["z"]), node("Add", ["z", "b"], ["y"])], [weight("w", 8, OLD), weight("b", OLD)], [OLD], {"z": [OLD]}
    yield "conv, pool, reshape by an initializer", [node("Conv", ["r", "w", "b"], ["c"]), node("GlobalAveragePool", ["c"], ["q"]), node("Reshape", ["q", "s"], ["y"])], \
        [weight("w", OLD, 8, 1, 1), weight("b", OLD), numbers("s", 0, OLD)], [OLD], {"c": [OLD, 6, 6], "q": [OLD, 1, 1]}
    yield "conv, pool, reshape by a constant", \
        [node("Constant", [], ["s"], value=numbers("", -1, OLD)), node("Conv", ["r", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["q"]), node("Reshape", ["q", "s"], ["y"])], \
        [weight("w", OLD, 8, 1, 1)], [OLD], {"c": [OLD, 6, 6]}
    yield "conv, pool, a shape made of pieces", \
        [node("Conv", ["r", "w", "b"], ["c"]), node("GlobalAveragePool", ["c"], ["q"]), node("Shape", ["r"], ["s"]), node("Slice", ["s", "zero", "one"], ["n"]),
         node("Constant", [], ["k"], value_int=OLD), node("Unsqueeze", ["k", "zero"], ["m"]), node("Concat", ["n", "m"], ["t"], axis=0), node("Reshape", ["q", "t"], ["y"])], \
        [weight("w", OLD, 8, 1, 1), weight("b", OLD), numbers("zero", 0), numbers("one", 1)], [OLD], {"c": [OLD, 6, 6]}
    yield "conv, mean, squeeze", \
        [node("Conv", ["r", "w", "b"], ["c"]), node("ReduceMean", ["c"], ["q"], axes=[2, 3], keepdims=1), node("Squeeze", ["q", "a"], ["y"])], \
        [weight("w", OLD, 8, 3, 3), weight("b", OLD), numbers("a", 2, 3)], [OLD], {"q": [OLD, 1, 1]}


def model(nodes, initializers, shape, infos, path):
    body = [helper.make_node("Conv", ["x", "c1", "c1.bias"], ["h"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["h"], ["r"])]

    def info(name, dims):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"] + dims)
    graph = helper.make_graph(body + nodes, "net", [info("x", [3, 6, 6])], [info("y", shape)], [weight("c1", 8, 3, 3, 3), weight("c1.bias", 8)] + initializers,
                              value_info=[info(k, v) for k, v in infos.items()])
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(m, full_check=True)
    onnx.save(m, path)


def outputs(path, x):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def values(path):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def check(program, name, path, work, x, xs, ys):
    out, again, y = (os.path.join(work, f) for f in ("out.onnx", "again.onnx", "y.npy"))
    data = ["--data", f"npy:{xs},{ys}", "-b", 8, "-q", "--progress", "off"]
    if common.run(program, path, "--train", *data, "--new-head", CLASSES, "--freeze", "*", "--epochs", 2, "-o", out) is None:
        return
    onnx.checker.check_model(out, full_check=True)
    before, after = values(path), values(out)
    result = onnx.load(out).graph.output[0].type.tensor_type.shape.dim
    common.verdict(f"{name}: declared shape", [d.dim_value for d in result][1:] == [CLASSES], str(result))
    changed = sorted(k for k in after if before[k].shape != after[k].shape or not numpy.array_equal(before[k], after[k]))
    allowed = [k for k in ("b", "s", "w") if k in after]
    common.verdict(f"{name}: only the head has changed", changed == allowed, f"{changed}")
    found = outputs(out, x)
    if common.run(program, out, "--infer", "--data", f"npy:{xs}", "-b", 8, "-q", "-o", y) is not None:
        gap = float(numpy.abs(found - numpy.load(y)).max())
        common.verdict(f"{name}: ONNX Runtime", found.shape == (len(x), CLASSES) and gap < 1e-5, f"{found.shape}, {gap:.2e}")
    # on from there, as a file with an ordinary head, sparsely written
    if common.run(program, out, "--train", *data, "--epochs", 2, "--sparsity", 0.5, "--dense-layers", "c1*", "--export", "sparse", "-o", again) is not None:
        common.verdict(f"{name}: trains on", outputs(out, x).shape == (len(x), CLASSES) and not numpy.array_equal(values(out)["c1"], values(again).get("c1")))
    # twice the same seed, the same file; another seed, another
    files = [os.path.join(work, f"{k}.onnx") for k in range(3)]
    for k, file in enumerate(files):
        if common.run(program, path, "--train", *data, "--new-head", CLASSES, "--seed", 1 + k // 2, "--epochs", 1, "-o", file) is None:
            return
    same = [values(f)["w"] for f in files]
    common.verdict(f"{name}: seeds", numpy.array_equal(same[0], same[1]) and not numpy.array_equal(same[0], same[2]))


def main():
    program = sys.argv[1]
    with common.work_folder() as work:
        x, label = random.standard_normal((24, 3, 6, 6), dtype=numpy.float32), random.integers(0, CLASSES, 24)
        xs, ys, path = (os.path.join(work, f) for f in ("x.npy", "label.npy", "model.onnx"))
        numpy.save(xs, x)
        numpy.save(ys, label)
        for name, *parts in heads():
            model(*parts, path)
            check(program, name, path, work, x, xs, ys)
    common.finish()


main()
