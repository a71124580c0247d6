# SPDX-License-Identifier: Apache-2.0
"""The plan of a call: the library's outer x channels x inner for tensors of some shape, dtype and strides."""

from __future__ import annotations

import ctypes
import importlib
import math
import operator
from functools import lru_cache
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from numpy.typing import DTypeLike

from .library import lib
from .structs import DType, Shape

Axis = Union[int, tuple[int, ...]]
Strides = Optional[tuple[int, ...]]

DTYPES: dict[np.dtype[Any], DType] = {
    np.dtype(np.float32): DType.FLOAT32,
    np.dtype(np.float64): DType.FLOAT64,
    np.dtype(np.float16): DType.FLOAT16,
}
# Two bytes that hold a bfloat16, where no package has made a dtype of it.
BITS = np.dtype("V2")
NAMES = "float32, float64, float16 or bfloat16"


def code_of(dtype: np.dtype[Any]) -> DType | None:
    """The bn_dtype of an array's elements; bfloat16 is a dtype of the package ml_dtypes."""
    is_bfloat16 = dtype == BITS or (dtype.name == "bfloat16" and dtype.itemsize == 2)
    return DType.BFLOAT16 if is_bfloat16 else DTYPES.get(dtype)


def canonical(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype without metadata, which comparisons of dtypes ignore."""
    return np.dtype(dtype.str) if dtype in DTYPES else dtype


def dtype_of(value: DTypeLike | None, name: str) -> np.dtype[Any]:
    """The dtype that the value stands for, if the library knows it. None is float32, as it is to PyTorch."""
    if type(value).__module__ == "torch":
        value = str(value).partition(".")[2]
    is_bfloat16 = isinstance(value, str) and str(value) == "bfloat16"
    try:
        dtype = bfloat16(name) if is_bfloat16 else np.dtype(np.float32 if value is None else value)
    except TypeError as error:
        raise (error if is_bfloat16 else TypeError(f"{name} is {value!r}, expected {NAMES}")) from None
    if code_of(dtype) is None:
        raise TypeError(f"{name} is {dtype}, expected {NAMES}")
    return dtype


def bfloat16(name: str) -> np.dtype[Any]:
    """The dtype of the package ml_dtypes."""
    try:
        dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        raise TypeError(f"{name} is of bfloat16, a dtype of the package ml_dtypes, which is not installed") from None
    return dtype


def parameter_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The default dtype of gamma, beta and running statistics beside tensors of this dtype."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


class Plan(NamedTuple):
    """The facts about a call's tensors that the library asks for."""

    shape: Shape  # by reference, which is how ctypes passes a structure where a pointer to one is declared
    code: int  # a bn_dtype
    misaligned: int  # the bits of an address that have to be zero
    dtype: np.dtype[Any]
    channels: int
    channel_shape: tuple[int, ...]
    empty: bool
    param: np.dtype[Any]
    param_code: int = 0  # of bn_options

    def beside(self, *parameters: Any) -> Plan:
        """The plan for a call with these parameters: beside 16-bit tensors they are float32, unless all of them that
        have a dtype have that of the tensors. Numbers without a fraction or a dtype of their own fit either.
        """
        if self.misaligned == 1:
            kinds = [p.dtype for p in parameters if getattr(getattr(p, "dtype", None), "kind", "i") not in "iu"]
            if kinds and all(kind == self.dtype for kind in kinds):
                return self._replace(param=self.dtype, param_code=self.code)
        return self


def as_axis(axis: Any) -> Axis:
    """`axis` as an int or a tuple of int; plan() could not tell 1 from 1.0, which are equal."""
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = tuple(operator.index(a) for a in given)
    except TypeError:
        raise TypeError(f"axis is {axis!r}, expected an int or a tuple of int") from None
    return axes if isinstance(axis, tuple) else axes[0]


@lru_cache(maxsize=512)
def plan(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axis: Axis,
    x_strides: tuple[int, ...],
    y_strides: Strides = None,
    dx_strides: Strides = None,
) -> Plan | None:
    """The plan for tensors of one shape; None if they cannot go to the library as they are.

    `y_strides` are those of y or dy, `dx_strides` those of dx; None stands for a dense array in x's memory order.
    """
    code = code_of(dtype)
    if code is None:
        return None
    dtype = canonical(dtype)
    axes = channel_axes(axis, len(shape))
    channel_shape = tuple(shape[a] for a in axes)
    known = [each for each in (x_strides, y_strides, dx_strides) if each is not None]
    found = extents(shape, dtype.itemsize, axes, False, *known)
    if found is None:
        return None
    gaps = iter(found.strides)
    strides = [0 if each is None else next(gaps) for each in (x_strides, y_strides, dx_strides)]
    channels = math.prod(channel_shape)
    struct = Shape(ctypes.sizeof(Shape), found.outer, channels, found.inner, *strides)
    param = parameter_dtype(dtype)
    return Plan(struct, int(code), dtype.itemsize - 1, dtype, channels, channel_shape, 0 in shape, param)


@lru_cache(maxsize=512)
def dense_plan(shape: tuple[int, ...], dtype: np.dtype[Any], axis: Axis) -> Plan | None:
    """The plan for C-contiguous tensors, whatever strides they give for axes of length 1."""
    strides = [dtype.itemsize * math.prod(shape[a + 1 :]) for a in range(len(shape))]
    return plan(shape, dtype, axis, tuple(strides))


def channel_axes(axis: Axis, rank: int) -> tuple[int, ...]:
    """The channel axes counted from the front, checked: one, or several that are adjacent and in order."""
    given = axis if isinstance(axis, tuple) else (axis,)
    for a in given:
        if not -rank <= a < rank:
            raise ValueError(f"axis {a} is out of range for an array of rank {rank}")
    axes = tuple(a % rank for a in given)
    if not axes or axes != tuple(range(axes[0], axes[0] + len(axes))):
        raise ValueError(f"axis {axis} is not a group of adjacent axes in ascending order")
    return axes


class Extents(NamedTuple):
    """The two extents besides the channels, and the outer stride of each tensor in elements (0 is dense)."""

    outer: int
    inner: int
    strides: tuple[int, ...]


@lru_cache(maxsize=512)
def extents(
    shape: tuple[int, ...], itemsize: int, axes: tuple[int, ...], samples_outermost: bool, *strides: tuple[int, ...]
) -> Extents | None:
    """The extents of tensors that have these strides in bytes; None if they cannot go to the library together."""
    rank, count = len(shape), len(strides)
    in_bytes = [0 if shape[a] == 1 else each[a] for each in strides for a in range(rank)]
    if any(stride % itemsize for stride in in_bytes):
        return None
    found, gaps = Shape(), (ctypes.c_size_t * count)()
    try:
        lib.bn_shape_from_strides(
            rank,
            (ctypes.c_int64 * rank)(*shape),
            axes[0],
            len(axes),
            count,
            (ctypes.c_int64 * len(in_bytes))(*(stride // itemsize for stride in in_bytes)),
            samples_outermost,
            found,
            gaps,
        )
    except ValueError:
        return None
    return Extents(found.outer, found.inner, tuple(gaps))


def order_in_memory(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of more than one element, outermost first."""
    return tuple(sorted((a for a in range(len(shape)) if shape[a] > 1), key=lambda a: -strides[a]))
