# SPDX-License-Identifier: Apache-2.0
"""MEST Runtime for Python: sparse training of ONNX models by libmest, NumPy arrays in and out.

Model      an ONNX file or its bytes: look, freeze, make sparse, export, versions of the weights
Session    training: whole runs, epochs, single steps; evaluate, infer, checkpoint, publish
Predictor  inference on published versions, beside training
Data       a data set by libmest's text form ("csv:FILE"), or NumPy arrays
Error      what failed calls raise: status and text of the library

Calls let other Python threads run. Objects may be used by different threads, each by one at a time; Session.cancel may be called from any.
"""
from ._abi import library_path, version
from .data import Data
from .errors import (ArgumentError, Cancelled, DataError, Error, FileError, FormatError, LimitError, NumericError, OutOfMemory, ShapeError,
                     StateError, Unsupported)
from .model import Model, Tensor
from .serve import Predictor, Version
from .session import Event, Metrics, Session

__version__ = "0.1.0"
__all__ = ["Model", "Session", "Predictor", "Data", "Tensor", "Version", "Metrics", "Event", "Error", "ArgumentError", "Cancelled", "DataError",
           "FileError", "FormatError", "LimitError", "NumericError", "OutOfMemory", "ShapeError", "StateError", "Unsupported", "library_path",
           "version"]
