# SPDX-License-Identifier: Apache-2.0
"""Models: an ONNX file and its weights."""
import ctypes
import functools
import os
import weakref
from dataclasses import dataclass

import numpy as np

from . import _abi
from .serve import Version, publish_options

ROLES = ("trainable", "statistic", "constant", "frozen")
DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64,
          12: np.uint32, 13: np.uint64}


@dataclass(frozen=True)
class Tensor:
    """What is known of a parameter, an input or an output. Symbolic sizes (the batch) are -1."""

    name: str
    dtype: object
    shape: tuple
    role: str
    reason: str
    scheme: str
    stored: int
    sparsity: float


def tensor(t):
    text = [x.decode() if x else "" for x in (t.name, t.role_reason, t.scheme)]
    return Tensor(text[0], np.dtype(DTYPES[t.dtype]) if t.dtype in DTYPES else t.dtype, tuple(t.dim[:t.rank]), ROLES[t.role], text[1], text[2],
                  t.stored, t.sparsity)


def export_bytes(function, handle, sparse, form):
    o, keep = export_options(sparse, form)
    size = ctypes.c_size_t()
    _abi.call(function, handle, None, 0, ctypes.byref(size), ctypes.byref(o))
    room = bytearray(size.value)
    _abi.call(function, handle, (ctypes.c_char * len(room)).from_buffer(room), len(room), ctypes.byref(size), ctypes.byref(o))
    del keep
    return bytes(room[:size.value])


def export_options(sparse, form):
    o = _abi.new(_abi.ExportOptions)
    o.sparse = bool(sparse)
    keep = form.encode() if form else None
    o.form = keep
    return o, keep


class Model(_abi.Handle):
    """An ONNX model, from a path or from bytes (of torch.onnx.export into io.BytesIO, for example)."""

    _destroy = "mest_model_destroy"

    def __init__(self, source, **options):
        """`options` are the fields of mest_model_options: keep_aliases, max_metadata_bytes, tolerant,
        trainable (names of Constant outputs or buffers that are parameters after all), read_files."""
        keep = []
        self._users = weakref.WeakSet()  # sessions, predictors, versions: the library wants them to go first
        self._own_life = _abi.Life()
        o = _abi.options(_abi.ModelOptions, options, keep)
        h = ctypes.c_void_p()
        if hasattr(source, "getbuffer"):
            source = source.getvalue()
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = bytes(source)
            o.lend_memory = False
            _abi.call("mest_model_load_memory", ctypes.byref(h), source, len(source), ctypes.byref(o))
        else:
            _abi.call("mest_model_load", ctypes.byref(h), os.fsencode(source), ctypes.byref(o))
        self._h = h.value

    def close(self):
        """Frees the model, and before it whatever was made of it."""
        for user in list(getattr(self, "_users", ())):
            user.close()
        h, self._h = self._h, None
        if h:
            self._own_life.last = functools.partial(_abi.plain, self._destroy, h)
            self._own_life.check()

    def _list(self, what):
        found = []
        for i in range(_abi.plain(f"mest_model_{what}_count", self.handle)):
            t = _abi.new(_abi.TensorInfo)
            _abi.call(f"mest_model_{what}", self.handle, i, ctypes.byref(t))
            found.append(tensor(t))
        return found

    @property
    def inputs(self):
        return self._list("input")

    @property
    def outputs(self):
        return self._list("output")

    @property
    def parameters(self):
        """All initializers, trained or not, with scheme and number of stored weights."""
        return self._list("parameter")

    def _number(self, name):
        if not isinstance(name, str):
            return int(name)
        for i, p in enumerate(self.parameters):
            if p.name == name:
                return i
        raise KeyError(name)

    def parameter(self, name):
        """Values of a parameter (name or number) as a dense float32 array."""
        i = self._number(name)
        out = np.empty(self.parameters[i].shape, np.float32)
        _abi.call("mest_model_read_parameter", self.handle, i, out.ctypes.data, out.size)
        return out

    def metadata(self, key):
        """Value of a key of the file's metadata, or None."""
        value = _abi.plain("mest_model_metadata", self.handle, key.encode())
        return value.decode() if value is not None else None

    def new_head(self, classes, output=None, seed=42):
        """Replaces the last layer by a fresh one with so many classes, before anything else is changed; returns the names of its weight and
        bias (None: it has none)."""
        info = _abi.new(_abi.HeadInfo)
        _abi.call("mest_model_new_head", self.handle, output.encode() if output else None, classes, seed, ctypes.byref(info))
        return info.weight.decode(), info.bias.decode() if info.bias else None

    def unfold_batch_norm(self):
        """Puts BatchNormalization back where an exporter folded it into convolutions; returns behind how many."""
        n = ctypes.c_int()
        _abi.call("mest_model_unfold_batch_norm", self.handle, ctypes.byref(n))
        return n.value

    def freeze(self, pattern, freeze=True):
        """Freezes (or thaws) the parameters whose names match; returns how many."""
        n = ctypes.c_int()
        _abi.call("mest_model_freeze", self.handle, pattern.encode(), freeze, ctypes.byref(n))
        return n.value

    def sparsify(self, scheme="csr", sparsity=0.9, **options):
        """Makes weights sparse; at most once, before a session. `options`: the fields of mest_sparsity (dense_layers, rules, seed, ..)."""
        keep = []
        o = _abi.options(_abi.Sparsity, dict(options, scheme=scheme, sparsity=sparsity), keep)
        _abi.call("mest_model_sparsify", self.handle, ctypes.byref(o))

    def export(self, path, sparse=False, form=None):
        """Writes the model with its present weights; an existing file is replaced only on success."""
        o, keep = export_options(sparse, form)
        _abi.call("mest_model_export", self.handle, os.fsencode(path), ctypes.byref(o))
        del keep

    def to_bytes(self, sparse=False, form=None):
        """The same as bytes."""
        return export_bytes("mest_model_export_memory", self.handle, sparse, form)

    # ---- versions ----
    def publish(self, **options):
        """Makes a version of the weights without a session; returns its Version. Fields of mest_publish_options; borrow=True copies nothing."""
        keep = []
        o = publish_options(options, keep)
        info = _abi.new(_abi.VersionInfo)
        _abi.call("mest_model_publish", self.handle, ctypes.byref(o), ctypes.byref(info))
        return Version.acquire(self, info.id)

    def promote(self, version):
        """Makes a kept version (or its id) the current one: also how to roll back."""
        _abi.call("mest_model_promote", self.handle, getattr(version, "id", version))

    def keep_versions(self, n):
        _abi.call("mest_model_keep_versions", self.handle, n)

    @property
    def current(self):
        """The version that predictors follow; None when nothing was published."""
        return Version.acquire(self, None)

    @property
    def versions(self):
        """The versions that are kept, oldest first."""
        found, after = [], 0
        while True:
            info = _abi.new(_abi.VersionInfo)
            _abi.call("mest_model_next_version", self.handle, after, ctypes.byref(info))
            if info.id == 0:
                return found
            after = info.id
            version = Version.acquire(self, after)
            if version:
                found.append(version)
