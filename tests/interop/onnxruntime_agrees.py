# SPDX-License-Identifier: Apache-2.0
"""Exported models in ONNX Runtime: dense and sparse export of networks trained for a few steps give the outputs of mest-run --infer.
Usage: onnxruntime_agrees.py MEST_RUN EXAMPLES_DIGITS"""
import os
import sys

import common

numpy, onnx, ort = common.need("numpy", "onnx", "onnxruntime")
TOLERANCE = 1e-4


def outputs(path, x):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, results = session.get_inputs()[0].name, []
    fixed = session.get_inputs()[0].shape[0]
    step = fixed if isinstance(fixed, int) else len(x)
    for i in range(0, len(x), step):
        results.append(session.run(None, {name: x[i:i + step]})[0])
    return numpy.concatenate(results)


def inference_form(path, to):
    """Files exported for training hold BatchNormalization in training form; ONNX Runtime's CPU build runs the inference form only where the
    file says so, and mest-run --infer always does."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            for i in range(len(node.attribute) - 1, -1, -1):
                if node.attribute[i].name == "training_mode":
                    del node.attribute[i]
            del node.output[1:]
        if node.op_type == "Dropout":
            del node.input[2:]
    onnx.save(model, to)
    return to


def compare(name, program, work, model, train_data, x, options):
    inputs = os.path.join(work, "x.npy")
    numpy.save(inputs, x)
    forms = [("block", "dense"), ("block", "sparse"), ("csr", "dense"), ("csr", "sparse"), ("filter", "dense"), ("filter", "shrunk"), ("channel", "shrunk")]
    for scheme, export in forms:
        whole = scheme in ("filter", "channel")
        sparse = ["--sparsity", "0.5" if whole else "0.9", "--scheme", scheme, "--method", "mest-em" if whole else "static"]
        if whole:
            sparse += ["--dense-layers", "none"]
        label = f"{name} ({scheme}, {export})"
        out, y = os.path.join(work, "out.onnx"), os.path.join(work, "y.npy")
        done = common.run(program, model, "--train", *train_data, *options, "--max-steps", 3, *sparse, "--export", export,
                          "--no-eval-before", "-q", "--progress", "off", "-o", out)
        if done is None or common.run(program, out, "--infer", "--data", f"npy:{inputs}", "-o", y, "-b", len(x), "-q") is None:
            continue
        try:
            onnx.checker.check_model(out)
        except onnx.checker.ValidationError as e:
            common.verdict(label, False, f"the checker of ONNX: {e}")
            continue
        if export == "shrunk" and os.path.getsize(out) > 0.8 * os.path.getsize(model):
            common.verdict(label, False, f"{os.path.getsize(out)} bytes of {os.path.getsize(model)}")
        n_sparse = len(onnx.load(out).graph.sparse_initializer)
        if (n_sparse > 0) != (export == "sparse") and name != "mlp":
            common.verdict(label, False, f"{n_sparse} sparse initializers")
        try:
            want = outputs(inference_form(out, os.path.join(work, "infer.onnx")), x)
        except Exception as e:  # pylint: disable=broad-except
            common.verdict(label, False, f"ONNX Runtime: {str(e)[:300]}")
            continue
        got = numpy.load(y)
        if got.shape != want.shape:
            common.verdict(label, False, f"shape {got.shape} instead of {want.shape}")
            continue
        worst = float(numpy.abs(got - want).max() / max(1.0, float(numpy.abs(want).max())))
        if os.environ.get("MEST_VERBOSE"):
            print(f"{label:40} {worst:.2e}")
        common.verdict(label, worst <= TOLERANCE, f"outputs differ by {worst:.2e}")


def main():
    program, digits = sys.argv[1], sys.argv[2]
    random = numpy.random.default_rng(1)
    with common.work_folder() as work:
        if os.path.exists(os.path.join(digits, "digits_cnn.onnx")):
            import csv
            import gzip
            with gzip.open(os.path.join(digits, "digits.csv.gz"), "rt") as f:
                x = numpy.array([row[:-1] for row, _ in zip((r for r in csv.reader(f) if r[0][0].isdigit()), range(40))], dtype=numpy.float32)
            common_data = ["--data", f"csv:{digits}/digits.csv.gz", "--limit", 300, "--input-shape", "1,8,8", "--scale-input", 16]
            compare("digits", program, work, os.path.join(digits, "digits_cnn.onnx"), common_data, x.reshape(-1, 1, 8, 8) / 16, ["-b", 32, "--lr", "0.05"])
        else:
            common.skip("digits", "the example is not here")
        shared = common.shared_folder()
        if not shared:
            common.skip("fixtures, resnet20", "not here (MEST_SHARED)")
            common.finish()
        for name in common.FIXTURES:
            folder = os.path.join(shared, "fixtures", name)
            x = numpy.load(os.path.join(folder, "input.npy"))
            rule = common.recipe(folder, len(x))
            data = rule[1:rule.index("--max-steps")]
            compare(name, program, work, os.path.join(folder, "model.onnx"), data, x, ["--lr", "0.01", *rule[rule.index("--loss"):rule.index("--opt")]])
        model = os.path.join(shared, "models", "resnet20_cifar10.onnx")
        if os.path.exists(model):
            x = random.standard_normal((16, 3, 32, 32)).astype(numpy.float32)
            numpy.save(os.path.join(work, "tx.npy"), x)
            numpy.save(os.path.join(work, "ty.npy"), random.integers(0, 10, 16))
            compare("resnet20", program, work, model, ["--data", f"npy:{work}/tx.npy,{work}/ty.npy", "-b", 8], x, ["--lr", "0.01"])
        else:
            common.skip("resnet20", "the model is not here")
    common.finish()


main()
