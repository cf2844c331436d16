#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes conformance cases of several nodes: branches that shapes decide, and sequences that the file knows. Usage:
make_graph_cases.py FOLDER. The expected numbers are those of ONNX Runtime, for branches (which it
refuses where the other one would not fit) of the onnx package's reference evaluator. Needs onnx, onnxruntime and numpy."""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

root = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(11)
node = helper.make_node


def real(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def ints(name, *values, scalar=False):
    return numpy_helper.from_array(np.array(values[0] if scalar else values, np.int64), name)


def case(name, nodes, inputs, outputs, constants=(), opset=17, reference=False):
    values = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for k, x in inputs.items()]
    graph = helper.make_graph(nodes, name, values, [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if reference:
        results = ReferenceEvaluator(model).run(None, inputs)
    else:
        results = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)
    for value, result in zip(model.graph.output, results):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, result.shape))
    folder = root / "node" / name / "test_data_set_0"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder.parent / "model.onnx")
    for kind, arrays in (("input", inputs.items()), ("output", zip(outputs, results))):
        for i, (n, x) in enumerate(arrays):
            (folder / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(np.asarray(x), n).SerializeToString())


def branch(name, nodes, out, constants=()):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)], list(constants))


def squeeze_or_not():
    """Squeeze where the axis has one element, Identity otherwise; inside it another If, whose branch has an initializer of its own. Both
    branches use the same names."""
    inner = node("If", ["is_long"], ["r"], name="inner", then_branch=branch("a", [node("Mul", ["x", "k"], ["v"])], "v", [numpy_helper.from_array(real(1), "k")]),
                 else_branch=branch("b", [node("Neg", ["x"], ["v"])], "v"))
    return [node("Shape", ["x"], ["s"]), node("Gather", ["s", "axis"], ["n"]), node("Equal", ["n", "one"], ["is_one"]),
            node("Greater", ["n", "one"], ["is_long"]),
            node("If", ["is_one"], ["y"], name="outer", then_branch=branch("t", [node("Squeeze", ["x", "axes"], ["r"])], "r"),
                 else_branch=branch("e", [inner], "r")), node("Add", ["y", "y"], ["z"])]


constants = [ints("axis", 1, scalar=True), ints("one", 1, scalar=True), ints("axes", 1)]
case("if_squeezes", squeeze_or_not(), {"x": real(3, 1, 4)}, ["z"], constants, reference=True)
case("if_nested", squeeze_or_not(), {"x": real(3, 2, 4)}, ["z"], constants, reference=True)

x = {"x": real(3, 7, 2)}
at = [ints(f"i{i}", i, scalar=True) for i in range(4)] + [ints("last", -1, scalar=True)]
take = lambda seq, index, out: node("SequenceAt", [seq, index], [out])
case("sequence_list", [node("SplitToSequence", ["x", "sizes"], ["q"], axis=1), take("q", "i2", "a"), take("q", "last", "b"), take("q", "i0", "c"),
                       node("Sub", ["a", "b"], ["ab"]), node("ReduceSum", ["c"], ["cs"]), node("Mul", ["ab", "cs"], ["y"])], x, ["y"],
     at + [ints("sizes", 3, 0, 2, 2)])
case("sequence_size", [node("SplitToSequence", ["x", "size"], ["q"], axis=1), take("q", "i0", "a"), take("q", "i2", "b"), node("Mul", ["a", "b"], ["y"])],
     x, ["y"], at + [ints("size", 3, scalar=True)])
case("sequence_unbind", [node("SplitToSequence", ["x"], ["q"], axis=-2, keepdims=0), take("q", "i1", "a"), take("q", "last", "b"), node("Identity", ["q"], ["p"]),
                         take("p", "i3", "c"), node("Sub", ["a", "b"], ["ab"]), node("Add", ["ab", "c"], ["y"])], x, ["y"], at)
case("sequence_built", [node("Neg", ["x"], ["nx"]), node("Exp", ["x"], ["ex"]), node("SequenceConstruct", ["x", "nx"], ["q"]), node("SequenceInsert", ["q", "ex", "i1"], ["p"]),
                        node("SequenceInsert", ["p", "x"], ["r"]), node("SequenceErase", ["r", "i0"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0),
                        node("ConcatFromSequence", ["p"], ["z"], axis=1, new_axis=1), node("SequenceLength", ["s"], ["n"]), node("Cast", ["n"], ["nf"], to=1),
                        node("Mul", ["x", "nf"], ["w"])], x, ["y", "z", "w"], at)
case("sequence_empty", [node("SequenceEmpty", [], ["q"]), node("SequenceInsert", ["q", "x"], ["p"]), node("SequenceInsert", ["p", "x", "i0"], ["r"]),
                        node("ConcatFromSequence", ["r"], ["y"], axis=-1)], x, ["y"], at)


def body(nodes, states, results, constants=()):
    """A loop's body: counter, condition (handed on), states; results are the states and what is stacked."""
    info = helper.make_tensor_value_info
    return helper.make_graph([node("Identity", ["go"], ["on"])] + nodes, "body",
                             [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])] + [info(s, TensorProto.FLOAT, None) for s in states],
                             [info("on", TensorProto.BOOL, [])] + [info(r, TensorProto.FLOAT, None) for r in results], list(constants))


rng = np.random.default_rng(12)
weights = [numpy_helper.from_array(real(3, 3), "w"), ints("three", 3, scalar=True), ints("zero", 0, scalar=True), ints("none", 0, scalar=True),
           numpy_helper.from_array(np.array(True), "yes")]
rnn = [node("MatMul", ["h", "w"], ["hw"]), node("Cast", ["i"], ["k"], to=1), node("Add", ["hw", "k"], ["s"]), node("Add", ["s", "x"], ["t"]), node("Tanh", ["t"], ["h2"]),
       node("Mul", ["c", "h2"], ["c2"])]
start = {"x": real(2, 3), "h0": real(2, 3), "c0": real(2, 3)}
case("loop_states", [node("Loop", ["three", "", "h0", "c0"], ["h3", "c3"], body=body(rnn, ["h", "c"], ["h2", "c2"])), node("Sub", ["h3", "c3"], ["y"])], start, ["y"], weights)
case("loop_stacked", [node("Loop", ["three", "yes", "h0", "c0"], ["h3", "c3", "rows"], body=body(rnn, ["h", "c"], ["h2", "c2", "hw"])),
                      node("Mul", ["rows", "c3"], ["y"])], start, ["y", "h3"], weights)
case("loop_none", [node("Loop", ["none", "", "h0", "c0"], ["h3", "c3"], body=body(rnn, ["h", "c"], ["h2", "c2"])), node("Sub", ["h3", "c3"], ["y"])], start, ["y"], weights)
first = node("If", ["is_first"], ["r"], then_branch=branch("t", [node("Mul", ["h", "x"], ["v"])], "v"), else_branch=branch("e", [node("Neg", ["h"], ["v"])], "v"))
inner = node("Loop", ["two", "", "r"], ["r2"], body=helper.make_graph(
    [node("Identity", ["go2"], ["on2"]), node("Mul", ["q", "scale"], ["q2"]), node("Add", ["q2", "x"], ["q3"])], "inner",
    [helper.make_tensor_value_info("j", TensorProto.INT64, []), helper.make_tensor_value_info("go2", TensorProto.BOOL, []), helper.make_tensor_value_info("q", TensorProto.FLOAT, None)],
    [helper.make_tensor_value_info("on2", TensorProto.BOOL, []), helper.make_tensor_value_info("q3", TensorProto.FLOAT, None)]))
case("loop_nested", [node("Loop", ["three", "", "h0"], ["h3", "rows"],
                          body=body([node("Equal", ["i", "zero"], ["is_first"]), first, inner], ["h"], ["r2", "r"],
                                    [numpy_helper.from_array(np.float32(0.7), "scale"), ints("two", 2, scalar=True)])),
                     node("Add", ["rows", "h3"], ["y"])], {k: start[k] for k in ("x", "h0")}, ["y"], weights[1:3])
