# SPDX-License-Identifier: Apache-2.0
"""Data sets: by text form, or NumPy arrays."""
import ctypes

import numpy as np

from . import _abi


def _samples(a, targets=False):
    """An array the library can take as it is: float32 or int64, C order."""
    a = np.asarray(a)
    if a.ndim == 0:
        raise ValueError("an array of samples has at least one axis")
    return np.ascontiguousarray(a, np.int64 if a.dtype.kind in "iub" and (targets or a.dtype == np.int64) else np.float32)


class Data(_abi.Handle):
    """Data("csv:digits.csv.gz", scale=16, input_shape=(1, 8, 8)) opens what mest-run --data opens, options as in mest_source_options.
    Data(x, y) takes arrays whose first axis counts samples; x may be a tuple, or a dict by the names of the model's inputs."""

    _destroy = "mest_source_close"

    def __init__(self, source, targets=None, **options):
        self._keep = []
        self.failure = None
        self._source = _abi.Source()
        if isinstance(source, str):
            if targets is not None:
                raise TypeError("targets come with the data set")
            shape = options.pop("input_shape", None)
            if shape is not None:
                options.update(input_rank=len(shape), input_dim=tuple(shape))
            for key in ("mean", "std"):
                if key in options:
                    options[f"n_{key}"] = len(options[key])
            o = _abi.options(_abi.SourceOptions, options, self._keep)
            _abi.call("mest_source_open", ctypes.byref(self._source), source.encode(), ctypes.byref(o))
        else:
            if options:
                raise TypeError(f"arrays take no options: {', '.join(options)}")
            self._of_arrays(source, targets)
        self._h = ctypes.addressof(self._source)

    def _of_arrays(self, source, targets):
        names = [None]
        if isinstance(source, dict):
            names, source = [n.encode() for n in source], tuple(source.values())
        arrays = [_samples(a) for a in (source if isinstance(source, tuple) else (source,))]
        names = names if len(names) == len(arrays) else [None] * len(arrays)
        y = None if targets is None else _samples(targets, True)
        lengths = {len(a) for a in arrays + ([] if y is None else [y])}
        if len(lengths) != 1:
            raise _abi.error(6, f"arrays of different lengths: {sorted(lengths)}")
        about = _abi.new(_abi.SourceInfo)
        about.count = lengths.pop()
        about.has_targets = y is not None
        about.target_type = 1 if y is not None and y.dtype == np.float32 else 7
        if y is not None:
            about.target_rank = y.ndim - 1
            about.target_dim[:y.ndim - 1] = y.shape[1:]
            about.n_classes = int(y.max()) + 1 if y.dtype == np.int64 and y.size else 0
        for k, a in enumerate(arrays):
            entry = about.input[k]
            entry.name, entry.type, entry.rank = names[k], 7 if a.dtype == np.int64 else 1, a.ndim - 1
            entry.dim[:a.ndim - 1] = a.shape[1:]
        about.input_type, about.input_rank = about.input[0].type, about.input[0].rank
        about.input_dim[:] = about.input[0].dim[:]
        about.n_inputs = len(arrays) if len(arrays) > 1 or names[0] else 0

        def info(_, out, err):
            size = min(out[0].struct_size or ctypes.sizeof(about), ctypes.sizeof(about))
            ctypes.memmove(out, ctypes.byref(about), size)
            return 0

        def put(ids, n, places, targets_at):
            picked = np.ctypeslib.as_array(ids, (n,))
            for a, place in zip(arrays + [y], list(places) + [targets_at]):
                if a is not None and place:
                    rows = np.take(a, picked, axis=0)
                    ctypes.memmove(place, rows.ctypes.data, rows.nbytes)

        def guarded(ids, n, places, targets_at, err):
            try:
                put(ids, n, places, targets_at)
                return 0
            except BaseException as e:  # nothing may leave a callback
                self.failure = e
                err[0].code, err[0].msg = 7, str(e).encode()[:507]
                return 7

        def fetch(_, ids, n, how, inputs, targets_at, err):
            return guarded(ids, n, [inputs], targets_at, err)

        def fetch_inputs(_, ids, n, how, inputs, targets_at, err):
            return guarded(ids, n, [inputs[k] for k in range(len(arrays))], targets_at, err)
        calls = [_abi.INFO(info), _abi.FETCH(fetch), _abi.FETCH_INPUTS(fetch_inputs)]
        self._keep += calls + arrays + names + [y, about]
        s = self._source
        s.struct_size = ctypes.sizeof(s)
        s.info = ctypes.cast(calls[0], ctypes.c_void_p)
        if about.n_inputs:
            s.fetch_inputs = ctypes.cast(calls[2], ctypes.c_void_p)
        else:
            s.fetch = ctypes.cast(calls[1], ctypes.c_void_p)

    @property
    def info(self):
        """The samples: count, input shape, number of classes."""
        about = _abi.new(_abi.SourceInfo)
        failure = _abi.Failure()
        code = ctypes.cast(self._source.info, _abi.INFO)(self._source.self, ctypes.byref(about), ctypes.byref(failure))
        if code:
            raise _abi.error(code, failure.msg.decode("utf-8", "replace"))
        return about

    def __len__(self):
        return self.info.count


def data_of(given):
    """What a training call was given: Data, text, or (x, y)."""
    if isinstance(given, Data):
        return given
    return Data(*given) if isinstance(given, tuple) else Data(given)
