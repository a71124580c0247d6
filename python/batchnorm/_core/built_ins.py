# SPDX-License-Identifier: Apache-2.0
"""The library's calls as built-in functions of CPython, which read plain arrays by their structure.

ctypes wraps functions that the library exports in the shape of CPython's fast calls. They take a third of the time that
a call with a small tensor takes by Python and ctypes. A built-in function returns None for everything but plain arrays
(NumPy's own type, dense in C's order, aligned, of one dtype) and for every error: the caller goes the long way then,
which has the messages. So all that is here may be missing: an interpreter of another kind has the long way alone, as
CPython has if BATCHNORM_BUILTINS is 0.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from ctypes import c_double, c_int, c_ssize_t, c_void_p, py_object
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import dlpack
from .layout import BITS, DTYPES
from .library import lib
from .makers import TORCH, Torch
from .records import KINDS, Record
from .structs import DType

BuiltIn = Any  # a function that tells mypy nothing, or None

_METH_FASTCALL = 0x80
_HEAD = 16  # bytes of an object before what its type adds
_FUNCTIONS = {
    "save_thread": "PyEval_SaveThread",
    "restore_thread": "PyEval_RestoreThread",
    "new_bytes": "PyBytes_FromStringAndSize",
    "clear_error": "PyErr_Clear",
    "as_long": "PyLong_AsLongAndOverflow",
    "retain": "Py_IncRef",
    "release": "Py_DecRef",
}
_OBJECTS = {
    "none": None, "yes": True, "no": False, "array": np.ndarray, "real": float, "integer": int, "text": bytes
}  # fmt: skip


class Interpreter(ctypes.Structure):
    """``python_interpreter``: what the built-in functions are told."""

    _fields_ = [
        *((name, c_void_p) for name in _OBJECTS),
        ("dtypes", c_void_p * (1 + len(DType))),
        ("tensors", c_void_p * 2),
        ("open_tensor", c_void_p),
        *((name, c_void_p) for name in _FUNCTIONS),
    ]


class _ArrayObject(ctypes.Structure):
    """``python_array``."""

    _fields_ = [
        ("references", c_ssize_t),
        ("type", c_void_p),
        ("data", c_void_p),
        ("rank", c_int),
        ("sizes", ctypes.POINTER(c_ssize_t)),
        ("strides", ctypes.POINTER(c_ssize_t)),
        ("base", c_void_p),
        ("dtype", c_void_p),
        ("flags", c_int),
    ]


class _MethodDef(ctypes.Structure):
    """CPython's ``PyMethodDef``."""

    _fields_ = [("name", ctypes.c_char_p), ("function", c_void_p), ("flags", c_int), ("doc", ctypes.c_char_p)]


def _is_as_expected() -> bool:
    """True if the objects of this interpreter are as the library reads them. Each is read within its own memory."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(c_void_p) != 8 or object.__basicsize__ != _HEAD:
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    array, number, text = np.zeros((2, 3), np.float32)[:, 1:], 2.5, b"text"
    text_head = bytes.__basicsize__ - 1
    if text_head != 32 or np.ndarray.__basicsize__ < ctypes.sizeof(_ArrayObject) or float.__basicsize__ != _HEAD + 8:
        return False
    seen = _ArrayObject.from_address(id(array))
    structure = Record()
    return (
        seen.type == id(np.ndarray)
        and (seen.data, seen.rank, seen.dtype) == (array.ctypes.data, array.ndim, id(array.dtype))
        and (tuple(seen.sizes[:2]), tuple(seen.strides[:2])) == (array.shape, array.strides)
        and seen.flags & 0x501 == 0x500  # aligned, writeable, not contiguous
        and c_double.from_address(id(number) + _HEAD).value == number
        and c_ssize_t.from_address(id(text) + _HEAD).value == len(text)
        and ctypes.string_at(id(text) + text_head, len(text)) == text
        and c_void_p.from_address(id(structure) + _HEAD).value == ctypes.addressof(structure)
    )


def _described() -> Interpreter:
    told = Interpreter(*map(id, _OBJECTS.values()))
    told.dtypes[1 : len(DTYPES) + 1] = list(map(id, KINDS[1 : len(DTYPES) + 1]))
    for name, function in _FUNCTIONS.items():
        setattr(told, name, ctypes.cast(getattr(dlpack.api, function), c_void_p).value)
    return told


def _wrapped(name: str) -> Any:
    method = _MethodDef(name.encode(), ctypes.cast(lib[name], c_void_p).value, _METH_FASTCALL, b"")
    # The function points to it, and may be called for as long as the interpreter lives.
    dlpack.api.Py_IncRef(py_object(method))
    new = dlpack.api.PyCFunction_NewEx
    new.restype, new.argtypes = py_object, [ctypes.POINTER(_MethodDef), py_object, c_void_p]
    return new(method, _interpreter, None)


def know(dtype: np.dtype[Any]) -> None:
    """Has the built-in functions take arrays of this dtype, if it is one of bfloat16."""
    if _interpreter is not None and KINDS[DType.BFLOAT16] is BITS and dtype.name == "bfloat16":
        KINDS[DType.BFLOAT16] = dtype
        _interpreter.dtypes[DType.BFLOAT16] = id(dtype)


def know_torch(torch: Any) -> None:
    """Has the built-in functions take tensors of PyTorch, if it describes them to C (DLPack 1.3)."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if _interpreter is None or _interpreter.open_tensor or not dlpack.is_valid(capsule, b"dlpack_exchange_api"):
        return
    api = dlpack.Exchange.from_address(dlpack.pointer(capsule, b"dlpack_exchange_api"))
    if api.major != 1:
        return
    _interpreter.open_tensor = api.open_tensor
    for place, kind in enumerate((torch.Tensor, torch.nn.Parameter)):
        _interpreter.tensors[place] = id(kind)
        TORCH[kind] = Torch(torch)


def _works(forward: Any) -> bool:
    """True if a first call gives what it should: mean 2 and y of -1 and 1."""
    x: NDArray[Any] = np.array([[1], [3]], np.float32)
    y = np.empty_like(x)
    record = forward(x, None, None, None, None, y, 1, 0.1, 0.0, True)
    return type(record) is bytes and y.tolist() == [[-1], [1]] and record[0] == 1


def _is_wanted() -> bool:
    exported = hasattr(lib, "batchnorm_python_backward")  # by a later version perhaps no more
    return exported and os.environ.get("BATCHNORM_BUILTINS") != "0" and _is_as_expected()


_interpreter = _described() if _is_wanted() else None
forward_training: BuiltIn = None
forward_inference: BuiltIn = None
backward: BuiltIn = None
if _interpreter is not None and _works(found := _wrapped("batchnorm_python_forward_training")):
    forward_training = found
    forward_inference = _wrapped("batchnorm_python_forward_inference")
    backward = _wrapped("batchnorm_python_backward")
