# SPDX-License-Identifier: Apache-2.0
"""The Python binding. MEST_DIGITS names the folder with digits_cnn.onnx and digits.csv.gz, MEST_LAYOUT the record of the binary interface."""
import ctypes
import gc
import os
import pathlib
import threading

import pytest

np = pytest.importorskip("numpy")
import mest
from mest import _abi

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = pathlib.Path(os.environ.get("MEST_DIGITS", ROOT / "examples" / "digits"))
LAYOUT = pathlib.Path(os.environ.get("MEST_LAYOUT", ROOT / "tests" / "abi" / "layout.txt"))
MODEL = DIGITS / "digits_cnn.onnx"
pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="MEST_DIGITS: no digits_cnn.onnx")


@pytest.fixture(scope="module")
def digits():
    table = np.loadtxt(DIGITS / "digits.csv.gz", delimiter=",")
    return (table[:, :64].reshape(-1, 1, 8, 8) / 16).astype(np.float32), table[:, 64].astype(np.int64)


def sparse_model(**options):
    model = mest.Model(MODEL)
    model.sparsify("block4", 0.9, **options)
    return model


def recipe(model, **changes):
    return mest.Session(model, ("mest", {"mode": "em", "freq": 2}), **dict(dict(epochs=6, lr=0.05, schedule="cosine", batch=32, threads=1), **changes))


@pytest.mark.skipif(not LAYOUT.exists(), reason="MEST_LAYOUT: no record of the binary interface")
def test_structures_are_those_of_the_headers():
    members = {}
    for line in LAYOUT.read_text().split("\n"):
        word = line.split()
        if word and word[0] == "M":
            members[word[1], word[2]] = int(word[3]), int(word[4])
    for name, kind in _abi.STRUCTS.items():
        ours = {f: (getattr(kind, f).offset, getattr(kind, f).size) for f, _ in kind._fields_}
        theirs = {f: place for (s, f), place in members.items() if s == name}
        assert theirs, name
        recorded = [f for f in ours if f in theirs]  # the newest, at the end, may not be in the record yet
        assert {f: theirs[f] for f in recorded} == {f: ours[f] for f in recorded}, name
        assert list(ours)[:len(recorded)] == recorded == list(theirs)[:len(recorded)], name


def test_arguments_have_the_number_that_the_headers_say():
    prototypes = LAYOUT.with_name("prototypes.txt")
    if not prototypes.exists():
        pytest.skip("no record of prototypes")
    text = {line.split("(")[0].split()[-1].lstrip("*"): line for line in prototypes.read_text().split("\n") if "(" in line}
    assert len(set(_abi.NAMES) - set(text)) < 10  # those that are newer than the record
    for name in set(_abi.NAMES) & set(text):
        line = text[name]
        inner = line[line.index("(") + 1:line.rindex(")")]
        assert len(getattr(_abi._lib, name).argtypes) == inner.count(",") + 1, line


def test_look(digits):
    with mest.Model(MODEL) as model:
        assert [t.name for t in model.inputs] == ["image"] and model.inputs[0].shape == (-1, 1, 8, 8)
        assert model.outputs[0].shape == (-1, 10)
        roles = {p.name: p.role for p in model.parameters}
        assert roles["conv2.weight"] == "trainable" and "statistic" in roles.values()
        assert model.freeze("fc.*") == 2
        assert {p.name: p.role for p in model.parameters}["fc.bias"] == "frozen"
        assert model.parameter("conv1.weight").shape == (32, 1, 3, 3)
        assert model.metadata("no such key") is None
    with pytest.raises(ValueError, match="closed"):
        model.inputs


def test_whole_run_improves_and_keeps_the_sparsity(digits, tmp_path):
    x, y = digits
    model = sparse_model()
    session = recipe(model)
    before = session.evaluate((x[1400:], y[1400:]))
    events = []
    session.train((x[:1400], y[:1400]), validation=(x[1400:], y[1400:]), progress=events.append, checkpoint=tmp_path / "c.ckpt")
    after = session.evaluate((x[1400:], y[1400:]))
    assert before.accuracy < 0.3 and after.accuracy > 0.9 and after.samples == len(x) - 1400
    epochs = [e for e in events if e.kind == "epoch"]
    assert len(epochs) == 6 and epochs[-1].validation.accuracy == after.accuracy
    assert any(e.kind == "mutation" and e.removed == e.grown > 0 for e in events)
    weight = {p.name: p for p in model.parameters}["conv3.weight"]
    assert weight.scheme == "block4" and abs(weight.sparsity - 0.9) < 0.001
    assert np.count_nonzero(model.parameter("conv3.weight")) <= weight.stored
    # What is written is what was evaluated: by path, by bytes, sparse and dense
    model.export(tmp_path / "dense.onnx")
    assert (tmp_path / "dense.onnx").read_bytes() == model.to_bytes()
    logits = session.infer(x[1400:])
    assert (logits.argmax(1) == y[1400:]).mean() == after.accuracy
    for sparse in (False, True):
        again = mest.Model(model.to_bytes(sparse=sparse))
        again.publish(borrow=True)
        with mest.Predictor(again, max_batch=64) as predictor:
            assert np.abs(predictor.infer(x[1400:]) - logits).max() < 1e-3
    assert session.position[0] == 6 and session.memory[1] >= session.memory[0] > 0


def test_text_form_and_arrays_are_the_same_data(digits):
    x, y = digits
    with mest.Data(f"csv:{DIGITS / 'digits.csv.gz'}", scale=16, input_shape=(1, 8, 8)) as data:
        assert len(data) == len(x)
        weights = []
        for source in (data, mest.Data(x, y), mest.Data({"image": x}, y)):
            model = sparse_model()
            recipe(model, epochs=1).train(source)
            weights.append(model.to_bytes())
    assert weights[0] == weights[1] == weights[2]


def test_steps_are_a_run(digits):
    x, y = digits[0][:320], digits[1][:320]
    one, other = sparse_model(), sparse_model()
    recipe(one, shuffle=False, epochs=3).train((x, y))
    session = recipe(other, shuffle=False, epochs=3)
    for _ in range(3):
        for i in range(0, len(x), 32):
            metrics = session.step(x[i:i + 32], y[i:i + 32])
        assert metrics.samples == 32 and metrics.steps == 1
        assert session.end_epoch().samples == 320
    assert one.to_bytes() == other.to_bytes()


def test_checkpoint_goes_on_bit_for_bit(digits, tmp_path):
    model = sparse_model()
    recipe(model).train(digits)
    cut = sparse_model()
    session = recipe(cut)
    with pytest.raises(mest.Cancelled):
        session.train(digits, checkpoint=tmp_path / "c.ckpt", progress=lambda e: e.total_step < 100)
    cut.close()
    resumed = sparse_model()
    session = recipe(resumed, threads=2)
    session.resume(tmp_path / "c.ckpt")
    assert session.position == (1, 100)
    while session.position[0] < 6:
        session.train_epoch(digits)
    with pytest.raises(mest.StateError):
        session.train_epoch(digits)
    assert resumed.to_bytes() == model.to_bytes()


def test_versions(digits):
    x, y = digits
    model = sparse_model()
    session = recipe(model)
    first = session.publish(note="untrained")
    predictor = mest.Predictor(model)
    before = predictor.infer(x[:50])
    assert predictor.version == first.id and first.current and first.note == "untrained"
    session.train((x[:1400], y[:1400]), validation=(x[1400:], y[1400:]), publish={"max_accuracy_drop": 0.5})
    assert model.current.id > first.id and model.current.accuracy > 0.9 and not first.current
    after = predictor.infer(x[1400:])
    assert predictor.version == model.current.id and (after.argmax(1) == y[1400:]).mean() == model.current.accuracy
    predictor.pin(first)
    assert np.array_equal(predictor.infer(x[:50]), before)
    predictor.pin(None)
    with pytest.raises(mest.LimitError):
        session.publish(accuracy=0.1, samples=10, max_accuracy_drop=0.05)
    old = model.versions[-2]
    model.promote(old)
    predictor.infer(x[:1])
    assert predictor.version == old.id and old.current
    session.restore(old)
    assert np.array_equal(old.parameter("conv2.weight"), model.parameter("conv2.weight"))
    assert old.to_bytes() == model.to_bytes()


def test_other_threads_run_during_training(digits):
    """A server answers while a session trains in another thread: the interpreter is not held, and answers belong to versions."""
    x, y = digits
    model = sparse_model()
    session = recipe(model, epochs=12)
    session.publish()
    done, seen, ticks = threading.Event(), set(), 0

    def work():
        try:
            session.train((x[:1400], y[:1400]), validation=(x[1400:], y[1400:]), publish=True)
        finally:
            done.set()
    thread = threading.Thread(target=work)
    thread.start()
    predictor = mest.Predictor(model)
    while not done.is_set():
        predictor.infer(x[:8])
        seen.add(predictor.version)
        ticks += 1
    thread.join()
    assert session.position[0] == 12 and ticks > 3 and len(seen) >= 2, (ticks, seen)


def test_errors_are_exceptions_with_text(digits, tmp_path):
    x, y = digits
    with pytest.raises(mest.FileError, match="nowhere.onnx"):
        mest.Model("nowhere.onnx")
    with pytest.raises(mest.FormatError):
        mest.Model(b"this is no model, but text that is long enough")
    model = sparse_model()
    with pytest.raises(mest.StateError):
        model.sparsify("csr", 0.5)
    with pytest.raises(TypeError, match="epochz.*there are: batch"):
        mest.Session(model, epochz=3)
    with pytest.raises(ValueError, match="learning rate|lr"):
        mest.Session(model, lr=-1.0)
    session = recipe(model)
    with pytest.raises(mest.ArgumentError, match="nosuch"):
        session.add_scheduler("forgetting", nosuch=1)
    with pytest.raises(mest.ShapeError, match="input 'image'"):
        session.step(x[:4].reshape(4, 8, 8), y[:4])
    with pytest.raises(mest.ShapeError, match="targets"):
        session.step(x[:4], y[:3])
    with pytest.raises(mest.Error):
        session.train((x, y + 100))
    with pytest.raises(mest.FileError):
        model.export(tmp_path / "no" / "such" / "folder.onnx")
    with pytest.raises(mest.ShapeError, match="lengths"):
        mest.Data(x, y[:3])

    def broken(event):
        raise KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        session.train(digits, progress=broken)


def test_everything_may_be_dropped_in_any_order(digits):
    model = sparse_model()
    session = recipe(model)
    session.publish()
    predictor = mest.Predictor(model)
    version = model.current
    model.close()
    for thing in (session, predictor, version):
        with pytest.raises(ValueError, match="closed"):
            thing.handle
    del session, predictor, version, model
    gc.collect()


def test_garbage_that_refers_to_itself_is_freed_in_order(digits):
    for _ in range(10):  # the collector finalizes model and session in any order
        model = sparse_model()
        session = recipe(model)
        model.box = session.box = [model, session]
        del model, session
        gc.collect()


def test_straight_from_torch(digits, tmp_path):
    """torch.onnx.export into memory, fine-tuned sparse, back into an ordinary file that ONNX Runtime agrees on."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    import io
    from torch.onnx import TrainingMode
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, padding=1),
                              torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32 * 16, 10))
    x, y = digits
    file = io.BytesIO()
    torch.onnx.export(net, torch.from_numpy(x[:2]), file, training=TrainingMode.TRAINING, do_constant_folding=False, opset_version=17, dynamo=False,
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    model = mest.Model(file)
    model.sparsify("csr", 0.8, dense_layers="none")
    session = recipe(model)
    session.train((x[:1400], y[:1400]))
    accuracy = session.evaluate((x[1400:], y[1400:])).accuracy
    assert accuracy > 0.9
    ort = pytest.importorskip("onnxruntime")
    answers = ort.InferenceSession(model.to_bytes(form="inference"), providers=["CPUExecutionProvider"]).run(None, {"x": x[1400:]})[0]
    assert np.abs(answers - session.infer(x[1400:])).max() < 1e-3


def test_a_network_of_several_inputs(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    import io

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.a, self.b = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 16), torch.nn.Linear(4, 16)
            self.out = torch.nn.Linear(16, 3)

        def forward(self, ids, x):
            return self.out(torch.relu(self.a(self.table(ids).mean(1)) + self.b(x)))
    file = io.BytesIO()
    torch.onnx.export(Two(), (torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 4)), file, dynamo=False, opset_version=17,
                      do_constant_folding=False, input_names=["ids", "x"], output_names=["y"],
                      dynamic_axes={"ids": {0: "n"}, "x": {0: "n"}, "y": {0: "n"}})
    rng = np.random.default_rng(0)
    ids, x = rng.integers(0, 20, (512, 5)), rng.standard_normal((512, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (ids[:, 0] > 10)
    model = mest.Model(file)
    session = mest.Session(model, epochs=20, lr=0.05, threads=1)
    session.train(mest.Data({"x": x, "ids": ids}, y))
    assert session.evaluate(((ids, x), y)).accuracy > 0.6
    assert session.step({"x": x[:8], "ids": ids[:8]}, y[:8]).samples == 8
    session.publish()
    predictor = mest.Predictor(model)
    assert np.allclose(predictor.infer(x=x, ids=ids), session.infer((ids, x)), atol=1e-5)


def test_a_new_head_learns_in_front_of_what_is_frozen(digits):
    x, y = digits
    keep = y < 4
    model = mest.Model(MODEL)
    weight, bias = model.new_head(4, seed=3)
    assert model.freeze("*") > 2 and model.freeze(weight, False) == model.freeze(bias, False) == 1
    assert model.unfold_batch_norm() == 0 # this file has its BatchNormalization
    assert model.outputs[0].shape[1] == 4 and model.parameter(weight).shape[0] == 4
    before = {p.name: model.parameter(p.name) for p in model.parameters}
    with mest.Session(model, epochs=2, lr=0.05, batch=32, threads=1) as session:
        session.train((x[keep], y[keep]))
    changed = {p.name for p in model.parameters if not np.array_equal(before[p.name], model.parameter(p.name))}
    assert changed == {weight, bias}
    with pytest.raises(mest.Error):
        model.new_head(5)


@pytest.mark.skipif(not (ROOT / "tests/data/zoo").exists(), reason="no networks beside the binding")
def test_steps_know_where_classes_are(tmp_path):
    """Classes of a picture's points lie on axis 1: the loss of a step is that of a run over the same samples."""
    model = mest.Model(ROOT / "tests/data/zoo/unet_transpose-preserve-eval-13/model.onnx")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2,) + model.inputs[0].shape[1:]).astype(np.float32)
    session = mest.Session(model, batch=2, lr=0.0, momentum=0.0, batch_norm="frozen")
    shape = session.output_shape
    y = rng.integers(0, shape[0], (2,) + shape[1:])
    assert abs(session.step(x, y).loss - session.evaluate((x, y)).loss) < 1e-5
