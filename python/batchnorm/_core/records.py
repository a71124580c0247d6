# SPDX-License-Identifier: Apache-2.0
"""The bytes in which a built-in function keeps what backward() needs: ``python_record`` and the arrays behind it."""

from __future__ import annotations

import ctypes
from ctypes import c_int8, c_int32, c_int64, c_uint8
from typing import Any, NamedTuple

import numpy as np

from .layout import BITS, DTYPES

HAS_GAMMA, HAS_BETA, _IS_FROZEN, IS_IN_PLACE = 1, 2, 4, 8
# Bytes of a record that tell what backward() needs before it has read the others.
AXIS, PARAMETER, HAS = 0, 2, 3


# By bn_dtype. That of bfloat16 is another package's, once it is known, and until then two bytes.
KINDS: list[np.dtype[Any] | None] = [None, *sorted(DTYPES, key=lambda dtype: DTYPES[dtype]), BITS]


class Record(ctypes.Structure):
    """``python_record``: the start of the bytes that a forward call returns."""

    _fields_ = [
        ("axis", c_int8),
        ("dtype", c_uint8),
        ("parameter", c_uint8),
        ("has", c_uint8),
        ("rank", c_int32),
        ("channels", c_int64),
    ]


class Unpacked(NamedTuple):
    """The parts of a record."""

    axis: int
    channels: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parameter: np.dtype[Any]
    frozen: bool
    both: bytes  # mean and invstd
    gamma: bytes | None
    beta: bytes | None


def unpacked(record: bytes) -> Unpacked:
    head = Record.from_buffer_copy(record)
    dtype, parameter = KINDS[head.dtype], KINDS[head.parameter]
    assert dtype is not None, "a built-in function knew it"
    assert parameter is not None, "and so this one"
    place = ctypes.sizeof(Record)
    parts: list[bytes | None] = []
    for size, there in (
        (8 * head.rank, True),
        (16 * head.channels, True),
        (head.channels * parameter.itemsize, head.has & HAS_GAMMA),
        (head.channels * parameter.itemsize, head.has & HAS_BETA),
    ):
        parts.append(record[place : place + size] if there else None)
        place += size if there else 0
    shape, both, gamma, beta = parts
    assert shape is not None
    assert both is not None
    sizes = tuple(int(size) for size in np.frombuffer(shape, np.int64))
    is_frozen = bool(head.has & _IS_FROZEN)
    return Unpacked(head.axis, head.channels, sizes, dtype, parameter, is_frozen, both, gamma, beta)
