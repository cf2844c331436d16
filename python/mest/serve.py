# SPDX-License-Identifier: Apache-2.0
"""Versions of the weights, and inference on them beside training."""
import ctypes
import os

import numpy as np

from . import _abi


def publish_options(given, keep):
    return _abi.options(_abi.PublishOptions, given, keep)


class Version(_abi.Handle):
    """One version of a model's weights: immutable, alive as long as it is held. Numbers that are not known are NaN."""

    _destroy = "mest_snapshot_release"

    def __init__(self, model, handle):
        self._h = handle
        self._made_of(model)
        info = _abi.new(_abi.VersionInfo)
        _abi.call("mest_snapshot_describe", handle, ctypes.byref(info))
        for field in ("id", "parent", "epoch", "step", "time_ms", "samples", "loss", "accuracy", "bytes", "copied_bytes"):
            setattr(self, field, getattr(info, field))
        self.note = info.note.decode("utf-8", "replace")

    @classmethod
    def acquire(cls, model, number):
        h = _abi.plain("mest_model_acquire", model.handle) if number is None else _abi.plain("mest_model_acquire_id", model.handle, number)
        return cls(model, h) if h else None

    @property
    def current(self):
        info = _abi.new(_abi.VersionInfo)
        _abi.call("mest_snapshot_describe", self.handle, ctypes.byref(info))
        return info.current

    def parameter(self, name):
        i = self._model._number(name)
        out = np.empty(self._model.parameters[i].shape, np.float32)
        _abi.call("mest_snapshot_read_parameter", self.handle, i, out.ctypes.data, out.size)
        return out

    def export(self, path, sparse=False, form=None):
        from .model import export_options
        o, keep = export_options(sparse, form)
        _abi.call("mest_snapshot_export", self.handle, os.fsencode(path), ctypes.byref(o))
        del keep

    def to_bytes(self, sparse=False, form=None):
        from .model import export_bytes
        return export_bytes("mest_snapshot_export_memory", self.handle, sparse, form)

    def __repr__(self):
        return f"<mest.Version {self.id}, loss {self.loss:.4g}, accuracy {self.accuracy:.4g}{', ' + self.note if self.note else ''}>"


class Predictor(_abi.Handle):
    """Inference on the current version, or on the one it is pinned to. One thread at a time; one predictor per serving thread."""

    _destroy = "mest_predictor_destroy"

    def __init__(self, model, **options):
        """Fields of mest_predictor_options: max_batch, threads, kernels, use_xnnpack, output."""
        from .model import tensor
        keep = []
        o = _abi.options(_abi.PredictorOptions, options, keep)
        h = ctypes.c_void_p()
        _abi.call("mest_predictor_create", ctypes.byref(h), model.handle, ctypes.byref(o))
        self._h = h.value
        self._made_of(model)
        self.version = 0  # of the last call

        def shapes(what, names):
            found = []
            for i in range(len(names)):
                t = _abi.new(_abi.TensorInfo)
                _abi.call(f"mest_predictor_{what}", h.value, i, ctypes.byref(t))
                found.append(tensor(t))
            return found
        self.inputs = shapes("input", model.inputs)
        only = options.get("output")
        self._outputs = [i for i, t in enumerate(model.outputs) if only in (None, t.name)]
        every = shapes("output", [None] * (max(self._outputs, default=-1) + 1)) if only is None else None
        if every is None:
            t = _abi.new(_abi.TensorInfo)
            _abi.call("mest_predictor_output", h.value, self._outputs[0], ctypes.byref(t))
            self.outputs = [tensor(t)]
        else:
            self.outputs = every

    def pin(self, version):
        """Stays on this version; None follows the current one again."""
        _abi.call("mest_predictor_pin", self.handle, version.handle if version else None)

    def infer(self, *inputs, **named):
        """Runs n samples, all on one version (then in `version`). Arrays in the model's order, or by name. Returns the first output."""
        return next(iter(self.run(*inputs, **named).values()))

    def run(self, *inputs, **named):
        """The same; returns all outputs by name."""
        given = [(t, a) for t, a in zip(self.inputs, inputs)] + [(t, named.pop(t.name)) for t in self.inputs if t.name in named]
        if named or len(inputs) > len(self.inputs):
            raise TypeError(f"no such input: {', '.join(named) or 'too many arrays'}; there are {', '.join(t.name for t in self.inputs)}")
        arrays, n = [], None
        for t, a in given:
            a = np.ascontiguousarray(a, t.dtype)
            if a.shape[1:] != t.shape and a.shape != t.shape:
                raise _abi.error(6, f"input '{t.name}' is {list(t.shape)} a sample, the array is {list(a.shape)}")
            if a.shape[1:] == t.shape:
                if n not in (None, len(a)):
                    raise _abi.error(6, f"input '{t.name}' has {len(a)} samples, others have {n}")
                n = len(a)
            arrays.append(a)
        if not n:
            raise _abi.error(1, "no samples were given")
        ins = (_abi.InputData * len(arrays))(*[_abi.InputData(t.name.encode(), a.ctypes.data, a.nbytes) for (t, _), a in zip(given, arrays)])
        results = [np.empty((n,) + t.shape, t.dtype) for t in self.outputs]
        outs = (_abi.OutputData * len(results))(*[_abi.OutputData(t.name.encode(), a.ctypes.data, a.nbytes) for t, a in zip(self.outputs, results)])
        version = ctypes.c_int64()
        _abi.call("mest_predictor_run", self.handle, n, ins, len(arrays), outs, len(results), ctypes.byref(version))
        self.version = version.value
        return {t.name: a for t, a in zip(self.outputs, results)}

    @property
    def memory(self):
        """(bytes held now, most ever held)"""
        now, peak = ctypes.c_int64(), ctypes.c_int64()
        _abi.plain("mest_predictor_memory", self.handle, ctypes.byref(now), ctypes.byref(peak))
        return now.value, peak.value
