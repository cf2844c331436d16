# SPDX-License-Identifier: Apache-2.0
"""Exceptions: one class for each status of mest/base.h that a caller may want to tell apart."""


class Error(Exception):
    """A call of libmest failed. `code` is the mest_status, the text names file, node and tensor."""

    code = 0


class ArgumentError(Error, ValueError):
    """The call is wrong."""


class OutOfMemory(Error, MemoryError):
    """The allocator gave nothing."""


class FileError(Error):
    """The system refused: no such file, disk full."""


class FormatError(Error, ValueError):
    """The file is damaged."""


class Unsupported(Error):
    """Valid, but not for this library; all operators are named."""


class ShapeError(Error, ValueError):
    """Shapes or types do not fit."""


class DataError(Error, ValueError):
    """A sample is bad."""


class NumericError(Error, ArithmeticError):
    """The loss is not finite."""


class StateError(Error):
    """Not now: a scheduler after the first step, a checkpoint of another recipe."""


class LimitError(Error):
    """A limit was exceeded; a version was refused by its guards."""


class Cancelled(Error):
    """Session.cancel was called, or a progress function returned False."""


BY_CODE = {1: ArgumentError, 2: OutOfMemory, 3: FileError, 4: FormatError, 5: Unsupported, 6: ShapeError, 7: DataError, 8: NumericError,
           9: StateError, 11: LimitError, 12: Cancelled}
