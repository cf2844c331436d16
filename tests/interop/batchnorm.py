# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization against ONNX Runtime: statistics estimated anew, files written in inference and training form, and layers that were
unfolded to train with. Usage: batchnorm.py MEST_RUN DATA_BN"""
import os
import sys

import common

numpy, onnx, ort = common.need("numpy", "onnx", "onnxruntime")
NETWORKS = ("resnet8", "mobilenetv2", "dscnn1d")


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model if isinstance(model, str) else model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs(path, x):
    s = session(path)
    return s.run(None, {s.get_inputs()[0].name: x})[0]


def gap(a, b):
    return float(numpy.abs(a - b).max() / max(1.0, float(numpy.abs(b).max())))


def initializers(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def statistics(path, batches, biased):
    """Mean over batches of the statistics of each, for every BatchNormalization, by ONNX Runtime: {name of the initializer: values}. Dropout
    must not act in the network."""
    model = onnx.load(path)
    layers = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    for node in layers:
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))
    s = session(model)
    sums = {}
    for x in batches:
        seen = dict(zip([o.name for o in s.get_outputs()], s.run(None, {s.get_inputs()[0].name: x})))
        for node in layers:
            v = seen[node.input[0]].astype(numpy.float64)
            axes = tuple(i for i in range(v.ndim) if i != 1)
            count = v.size // v.shape[1]
            sums.setdefault(node.input[3], []).append(v.mean(axes))
            sums.setdefault(node.input[4], []).append(v.var(axes) * (1 if biased else count / (count - 1)))
    return {name: numpy.mean(values, 0) for name, values in sums.items()}


def recompute(program, work, net, folder):
    x = numpy.load(f"{folder}/input.npy")
    half = (len(x) + 1) // 2
    out = os.path.join(work, "out.onnx")
    for rule in ("pytorch", "onnx"):
        name = f"{net}: statistics estimated anew ({rule})"
        if common.run(program, f"{folder}/model.onnx", "--train", "--data", f"npy:{folder}/input.npy,{folder}/label.npy", "--no-shuffle", "-b", half, "--max-steps", 1,
                      "--lr", 0, "--bn-stats", rule, "--bn-recompute", "after", "--drop", 0, "-q", "--no-eval-before", "--progress", "off", "-o", out) is None:
            continue
        # opsets 9 to 13 have a training form that ONNX Runtime's CPU build lacks: newer ones are what is compared here
        if onnx.load(out).opset_import[0].version < 14:
            common.skip(name, "the training form of this opset does not run in ONNX Runtime")
            continue
        want, have = statistics(out, [x[:half], x[half:]], rule == "onnx"), initializers(out)
        worst = max(gap(have[k], v) for k, v in want.items())
        common.verdict(name, len(want) > 0 and worst < 2e-5, f"{worst:.2e}")


def forms(program, work, net, folder):
    x = numpy.load(f"{folder}/input.npy")
    out, again, y = (os.path.join(work, f) for f in ("out.onnx", "again.onnx", "y.npy"))
    data = ["--train", "--data", f"npy:{folder}/input.npy,{folder}/label.npy", "-b", len(x), "-q", "--no-eval-before", "--progress", "off"]
    if common.run(program, f"{folder}/model.onnx", *data, "--max-steps", 3, "--export-form", "inference", "-o", out) is None:
        return
    if common.run(program, out, "--infer", "--data", f"npy:{folder}/input.npy", "-o", y, "-b", len(x), "-q") is None:
        return
    onnx.checker.check_model(out, full_check=True)
    model = onnx.load(out)
    single = all(len(n.output) == 1 for n in model.graph.node if n.op_type == "BatchNormalization")
    common.verdict(f"{net}: inference form", single and gap(outputs(out, x), numpy.load(y)) < 1e-5, f"{gap(outputs(out, x), numpy.load(y)):.2e}")
    # and back: in training form ONNX Runtime normalises with the batch
    if common.run(program, out, *data, "--max-steps", 1, "--lr", 0, "--export-form", "training", "-o", again) is None:
        return
    onnx.checker.check_model(again, full_check=True)
    model = onnx.load(again)
    version = model.opset_import[0].version
    many = all(len(n.output) == (3 if version >= 14 else 5) for n in model.graph.node if n.op_type == "BatchNormalization")
    common.verdict(f"{net}: training form", many, "outputs")
    if version >= 14:
        common.verdict(f"{net}: training form runs", gap(outputs(again, x), numpy.load(y)) > 1e-3, "the same as in inference")


def unfold(program, work, data):
    random = numpy.random.default_rng(3)
    x, label = random.standard_normal((64, 3, 12, 12), dtype=numpy.float32), random.integers(0, 4, 64)
    x[:, 0] += label[:, None, None]
    xs, ys, out, y = (os.path.join(work, f) for f in ("x.npy", "label.npy", "out.onnx", "y.npy"))
    numpy.save(xs, x)
    numpy.save(ys, label)
    for file in ("folded_legacy", "folded_dynamo", "folded_nobias"):
        path = f"{data}/{file}.onnx"
        if common.run(program, path, "--train", "--data", f"npy:{xs},{ys}", "--bn", "unfold", "-b", 16, "--epochs", 3, "--lr", 0.05, "-q", "--progress", "off", "-o", out) is None:
            continue
        if common.run(program, out, "--infer", "--data", f"npy:{xs}", "-o", y, "-b", 64, "-q") is None:
            continue
        onnx.checker.check_model(out, full_check=True)
        before, after = onnx.load(path), onnx.load(out)
        same = [(n.op_type, n.name, list(n.output)) for n in before.graph.node] == [(n.op_type, n.name, list(n.output)) for n in after.graph.node]
        common.verdict(f"{file}: the nodes are those of the file", same)
        worst = gap(outputs(out, x), numpy.load(y))
        common.verdict(f"{file}: ONNX Runtime", worst < 1e-5, f"{worst:.2e}")
        common.verdict(f"{file}: it was trained", gap(outputs(out, x), outputs(path, x)) > 1e-2)


def main():
    program, data = sys.argv[1], sys.argv[2]
    shared = common.shared_folder()
    with common.work_folder() as work:
        unfold(program, work, data)
        if not shared:
            common.skip("networks", "MEST_SHARED is not set")
        for net in NETWORKS if shared else ():
            recompute(program, work, net, f"{shared}/fixtures/{net}")
            forms(program, work, net, f"{shared}/fixtures/{net}")
    common.finish()


main()
