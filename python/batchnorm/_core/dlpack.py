# SPDX-License-Identifier: Apache-2.0
"""The structures of DLPack, by which packages give each other the memory of tensors."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, py_object
from typing import Any

CPU = 1
DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI"}
LETTERS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # NumPy's, by DLDataTypeCode
BFLOAT = 4
_READ_ONLY = 1


class Tensor(ctypes.Structure):
    """``DLTensor``, strides in elements."""

    _fields_ = [
        ("data", c_void_p),
        ("device", c_int32),
        ("device_id", c_int32),
        ("rank", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("offset", c_uint64),
    ]


class Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned``."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", Tensor),
    ]


class Exchange(ctypes.Structure):
    """``DLPackExchangeAPI``, as far as it is used here."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("before", c_void_p),
        ("allocate", c_void_p),
        ("managed_from_object", c_void_p),
        ("managed_to_object", c_void_p),
        ("open_tensor", c_void_p),  # dltensor_from_py_object_no_sync
    ]


# Functions of its own: those of ctypes.pythonapi are everybody's, and so are the types that they are declared with.
api = ctypes.PyDLL(None)
is_valid = api.PyCapsule_IsValid
is_valid.restype, is_valid.argtypes = ctypes.c_int, [py_object, ctypes.c_char_p]
pointer = api.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = c_void_p, [py_object, ctypes.c_char_p]


def opened(value: Any) -> tuple[Any, Tensor, bool]:
    """The capsule of a tensor, what is in it, and True if it may not be written, of which one of an old kind does not
    tell.
    """
    try:
        capsule = value.__dlpack__(max_version=(1, 0))
    except TypeError:
        capsule = value.__dlpack__()
    if is_valid(capsule, b"dltensor_versioned"):
        managed = Versioned.from_address(pointer(capsule, b"dltensor_versioned"))
        if managed.major != 1:
            raise BufferError(f"DLPack {managed.major}.{managed.minor} is not known")
        return capsule, managed.tensor, bool(managed.flags & _READ_ONLY)
    if not is_valid(capsule, b"dltensor"):
        raise BufferError("__dlpack__() gives no capsule of a tensor, or one that was used")
    return capsule, Tensor.from_address(pointer(capsule, b"dltensor")), True
