# SPDX-License-Identifier: Apache-2.0
"""Sessions: train, evaluate, infer."""
import ctypes
import math
import os
from dataclasses import dataclass

import numpy as np

from . import _abi
from .data import data_of
from .serve import Version, publish_options

KINDS = ("step", "epoch", "mutation", "samples", "checkpoint", "evaluation", "version")


@dataclass(frozen=True)
class Metrics:
    """Mean loss, accuracy (0..1, NaN without classes) and counts."""

    loss: float
    accuracy: float
    samples: int
    steps: int
    seconds: float

    @classmethod
    def of(cls, m):
        return cls(m.loss, m.accuracy, m.samples, m.steps, m.seconds)


@dataclass(frozen=True)
class Event:
    """What a progress function gets; `kind` is one of step, epoch, mutation, samples, checkpoint, evaluation, version."""

    kind: str
    epoch: int
    n_epochs: int
    step: int
    n_steps: int
    total_step: int
    lr: float
    batch: Metrics
    train: Metrics
    validation: object
    sparsity: float
    removed: int
    grown: int
    peak_bytes: int
    text: str

    @classmethod
    def of(cls, e):
        plain = {k: getattr(e, k) for k in ("epoch", "n_epochs", "step", "n_steps", "total_step", "lr", "sparsity", "removed", "grown", "peak_bytes")}
        return cls(kind=KINDS[e.kind] if e.kind < len(KINDS) else str(e.kind), batch=Metrics.of(e.batch), train=Metrics.of(e.train),
                   validation=Metrics.of(e.validation) if e.validation.samples else None, text=e.text.decode("utf-8", "replace") if e.text else "",
                   **plain)


class Session(_abi.Handle):
    """One model being trained. Keyword arguments are the fields of mest_train_config: batch, epochs, lr, optimizer, schedule, seed, .."""

    _destroy = "mest_session_destroy"

    def __init__(self, model, scheduler=None, **config):
        """`scheduler`: "mest", or ("mest", {"mode": "em", "freq": 2}), or a list of these; more by add_scheduler before the first step."""
        keep = []
        config.setdefault("batch", 0)  # as many as the file allows
        c = _abi.options(_abi.TrainConfig, config, keep)
        self._loss = config.get("loss", "ce")
        self._output = config.get("output")
        h = ctypes.c_void_p()
        _abi.call("mest_session_create", ctypes.byref(h), model.handle, ctypes.byref(c))
        self._h = h.value
        self._made_of(model)
        self._inputs = model.inputs
        for s in scheduler if isinstance(scheduler, list) else [scheduler] if scheduler else []:
            name, options = (s, {}) if isinstance(s, str) else s
            self.add_scheduler(name, **options)

    def add_scheduler(self, name, **options):
        """A built-in scheduler or the path of a shared object."""
        def text(v):
            return "yes" if v is True else "no" if v is False else "/".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v)
        line = ",".join(f"{k}={text(v)}" for k, v in options.items())
        _abi.call("mest_session_add_scheduler", self.handle, os.fsencode(name), line.encode() if line else None)

    # ---- runs over a data set ----
    def _run(self, function, data, progress, result, options, validation=None, publish=None):
        keep, failure = [], []

        def tell(_, event):
            try:  # an exception, or Ctrl-C, ends the run after this step and goes on in the caller
                return progress is None or progress(Event.of(event[0])) is not False
            except BaseException as e:
                failure.append(e)
                return False
        data = data_of(data)
        callback = _abi.PROGRESS(tell)
        o = _abi.options(_abi.RunOptions, {k: v for k, v in options.items() if v is not None}, keep)
        o.progress = ctypes.cast(callback, ctypes.c_void_p)
        if validation is not None:
            validation = data_of(validation)
            o.validation = validation.handle
        if publish is not None:
            publish = publish_options({} if publish is True else publish, keep)
            o.publish = ctypes.addressof(publish)
        extra = [ctypes.byref(result)] if result is not None else []
        try:
            _abi.call(function, self.handle, data.handle, ctypes.byref(o), *extra)
        except _abi.Error as e:
            for cause in failure + [d.failure for d in (data, validation) if d is not None and d.failure]:
                raise cause from e
            raise
        finally:
            del callback, keep
        if failure:
            raise failure[0]

    def train(self, data, validation=None, progress=None, checkpoint=None, checkpoint_every_steps=None, checkpoint_every_epochs=None,
              validate_every=None, max_epochs=None, publish=None):
        """Trains to the end of the run, from wherever the session stands. `data`: Data, text form, or (x, y). `progress(event)` may return
        False to stop (mest.Cancelled). `publish`: a dict of guards (mest_publish_options) or True: a version after each validation."""
        self._run("mest_session_train", data, progress, None, {
            "checkpoint_path": checkpoint, "checkpoint_every_steps": checkpoint_every_steps, "checkpoint_every_epochs": checkpoint_every_epochs,
            "validate_every": validate_every, "max_epochs": max_epochs}, validation, publish)

    def train_epoch(self, data, validation=None, progress=None, publish=None):
        """The same for one epoch; returns its Metrics."""
        m = _abi.new(_abi.MetricsStruct)
        self._run("mest_session_train_epoch", data, progress, m, {}, validation, publish)
        return Metrics.of(m)

    def evaluate(self, data, progress=None):
        m = _abi.new(_abi.MetricsStruct)
        self._run("mest_session_evaluate", data, progress, m, {})
        return Metrics.of(m)

    # ---- arrays of one's own ----
    def _arrays(self, x, y=None):
        """Arrays for all inputs of the model, in its order; the session is told their shapes, and those of the targets `y`."""
        if isinstance(x, dict):
            missing = [t.name for t in self._inputs if t.name not in x] + [n for n in x if n not in {t.name for t in self._inputs}]
            if missing:
                raise _abi.error(1, f"inputs are {', '.join(t.name for t in self._inputs)}; check {', '.join(missing)}")
            x = tuple(x[t.name] for t in self._inputs)
        x = x if isinstance(x, tuple) else (x,)
        if len(x) != len(self._inputs):
            raise _abi.error(1, f"{len(x)} arrays for {len(self._inputs)} inputs")
        arrays = [np.ascontiguousarray(a, t.dtype) for a, t in zip(x, self._inputs)]
        for a, t in zip(arrays, self._inputs):
            if a.ndim != len(t.shape) or any(w >= 0 and w != g for w, g in zip(t.shape[1:], a.shape[1:])):
                raise _abi.error(6, f"input '{t.name}' is {list(t.shape)}, the array is {list(a.shape)}")
            if len(a) != len(arrays[0]):
                raise _abi.error(6, "arrays of different lengths")
        about = _abi.new(_abi.SourceInfo)  # sizes that the file leaves free, and where a target's axes are, only the arrays tell
        about.n_inputs = len(arrays)
        keep = [t.name.encode() for t in self._inputs]
        for k, (a, t) in enumerate(zip(arrays, self._inputs)):
            about.input[k].name, about.input[k].type, about.input[k].rank = keep[k], 7 if t.dtype == np.int64 else 1, a.ndim - 1
            about.input[k].dim[:a.ndim - 1] = a.shape[1:]
        if y is not None:
            about.has_targets, about.target_type, about.target_rank = True, 7 if y.dtype == np.int64 else 1, y.ndim - 1
            about.target_dim[:y.ndim - 1] = y.shape[1:]
        _abi.call("mest_session_expect", self.handle, ctypes.byref(about))
        return arrays, (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])

    def step(self, x, y):
        """One training step on at most `batch` samples; returns its Metrics. Classes are whole numbers, other targets float."""
        y = np.ascontiguousarray(y, np.int64 if self._loss == "ce" else np.float32)
        arrays, places = self._arrays(x, y)
        n = len(arrays[0])
        if y.ndim < 1 or len(y) != n:
            raise _abi.error(6, f"targets {list(y.shape)} for {n} samples")
        m = _abi.new(_abi.MetricsStruct)
        _abi.call("mest_session_step_inputs", self.handle, places, y.ctypes.data, n, ctypes.byref(m))
        return Metrics.of(m)

    def end_epoch(self):
        """Ends an epoch of steps: schedulers act, the learning rate goes on. Returns the Metrics of its steps."""
        m = _abi.new(_abi.MetricsStruct)
        _abi.call("mest_session_end_epoch", self.handle, ctypes.byref(m))
        return Metrics.of(m)

    def infer(self, x):
        """The output for these samples, float32, in evaluation mode."""
        arrays, places = self._arrays(x)
        n = len(arrays[0])
        out = np.empty((n,) + self.output_shape, np.float32)
        _abi.call("mest_session_infer_inputs", self.handle, places, n, out.ctypes.data, out.size)
        return out

    @property
    def output_shape(self):
        """Of one sample."""
        rank, dim = ctypes.c_int(), (ctypes.c_int64 * 8)()
        _abi.call("mest_session_output_shape", self.handle, ctypes.byref(rank), dim)
        return tuple(dim[:rank.value])

    def gradient(self, name):
        """Gradient of a parameter in the last step, dense; needs keep_gradients=True."""
        i = self._model._number(name)
        out = np.empty(self._model.parameters[i].shape, np.float32)
        _abi.call("mest_session_read_gradient", self.handle, i, out.ctypes.data, out.size)
        return out

    def set_learning_rate(self, lr):
        _abi.call("mest_session_set_learning_rate", self.handle, lr)

    def cancel(self):
        """Stops a run after its step; from any thread."""
        _abi.plain("mest_session_cancel", self.handle)

    # ---- checkpoints and versions ----
    def checkpoint(self, path):
        _abi.call("mest_session_checkpoint", self.handle, os.fsencode(path))

    def resume(self, path):
        """Same model file, sparsity and config; call it after the schedulers were added."""
        _abi.call("mest_session_resume", self.handle, os.fsencode(path))

    def publish(self, **options):
        """Makes a version of the weights as they are; returns it. Guards that refuse raise LimitError."""
        keep = []
        o = publish_options(options, keep)
        info = _abi.new(_abi.VersionInfo)
        _abi.call("mest_session_publish", self.handle, ctypes.byref(o), ctypes.byref(info))
        return Version.acquire(self._model, info.id)

    def restore(self, version):
        """Trains on from this version's weights."""
        _abi.call("mest_session_restore", self.handle, version.handle)

    @property
    def position(self):
        """(whole epochs, steps) done"""
        epochs, steps = ctypes.c_int64(), ctypes.c_int64()
        _abi.plain("mest_session_position", self.handle, ctypes.byref(epochs), ctypes.byref(steps))
        return epochs.value, steps.value

    @property
    def memory(self):
        """(bytes held now, most ever held)"""
        now, peak = ctypes.c_int64(), ctypes.c_int64()
        _abi.plain("mest_session_memory", self.handle, ctypes.byref(now), ctypes.byref(peak))
        return now.value, peak.value
