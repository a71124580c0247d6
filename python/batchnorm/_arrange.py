# SPDX-License-Identifier: Apache-2.0
"""Brings the tensors of a call into one memory order and finds their addresses.

Arrays that are fit to go by pointer take the short way at the top of each function: one look-up by shape and strides.
What is wrong with the others is found out afterwards, and inputs that have to be copied are copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import empty_like, ndarray
from numpy.typing import ArrayLike

from . import _arrays
from ._arrays import Array, address, address_of_any
from ._layout import Axis, Plan, as_axis, plan


def one(x: ArrayLike, axis: Axis) -> tuple[Plan, Array, int]:
    """x of a call without other tensors, and its address."""
    axis = as_axis(axis)
    (x,) = _in_one_order(_tensors(x=x), axis, None)
    return _fit(axis, x), x, address(x)


def two(dy: ArrayLike, x: ArrayLike, axis: Axis) -> tuple[Plan, Array, Array, int, int]:
    """dy and x of a call that gives no tensor, and their addresses."""
    axis = as_axis(axis)
    x, dy = _in_one_order(_tensors(x=x, dy=dy), axis, None)
    return _fit(axis, x, dy), dy, x, address(dy), address(x)


def forward(x: ArrayLike, axis: Axis, out: Array | None) -> tuple[Plan, Array, Array, int, int]:
    """x and y of a call, and their addresses. y is `out`, or a new dense array in x's memory order."""
    if type(x) is ndarray and (out is None or _takes(out, x)):
        fit = plan(x.shape, x.dtype, axis, x.strides, None if out is None else out.strides)
        if fit is not None:
            y = empty_like(x) if out is None else out
            x_address, y_address = address_of_any(x), address_of_any(y)
            if not (x_address | y_address) & fit.misaligned:
                return fit, x, y, x_address, y_address
    (x,) = _in_one_order(_tensors(x=x), axis, out)
    y = empty_like(x) if out is None else out
    return _fit(axis, x, y), x, y, address(x), address(y)


def backward(
    dy: ArrayLike, x: ArrayLike, axis: Axis, out: Array | None
) -> tuple[Plan, Array, Array, Array, int, int, int]:
    """dy, x and dx of a call, and their addresses. dx is `out`, or a new dense array in x's memory order."""
    if type(x) is ndarray and type(dy) is ndarray and dy.shape == x.shape and dy.dtype == x.dtype:
        fit = None
        if out is None or _takes(out, x):
            fit = plan(x.shape, x.dtype, axis, x.strides, dy.strides, None if out is None else out.strides)
        if fit is not None:
            dx = empty_like(x) if out is None else out
            dy_address, x_address, dx_address = address_of_any(dy), address_of_any(x), address_of_any(dx)
            if not (dy_address | x_address | dx_address) & fit.misaligned:
                return fit, dy, x, dx, dy_address, x_address, dx_address
    x, dy = _in_one_order(_tensors(x=x, dy=dy), axis, out)
    dx = empty_like(x) if out is None else out
    return _fit(axis, x, dy, dx), dy, x, dx, address(dy), address(x), address(dx)


def _takes(out: Array, x: Array) -> bool:
    return type(out) is ndarray and out.shape == x.shape and out.dtype == x.dtype and out.flags.writeable


def _fit(axis: Axis, *arrays: Array) -> Plan:
    fit = plan(arrays[0].shape, arrays[0].dtype, axis, *(array.strides for array in arrays))
    assert fit is not None, "_in_one_order() has seen to it"
    return fit


def _tensors(**values: Any) -> dict[str, Array]:
    """The values as arrays of one dtype and shape: those of x, which comes first."""
    x = _arrays.tensor(values.pop("x"), "x")
    arrays = {"x": x}
    for name, value in values.items():
        # A list has no dtype of its own.
        own = _arrays.of_layer(value, name, x.dtype) if isinstance(value, (list, tuple)) else value
        arrays[name] = _arrays.tensor(own, name)
    for name, array in arrays.items():
        if array.dtype != x.dtype:
            raise TypeError(f"{name} has dtype {array.dtype}, expected {x.dtype}, the dtype of x")
        if array.shape != x.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {x.shape}, the shape of x")
    return arrays


def _in_one_order(arrays: dict[str, Array], axis: Axis, out: Array | None) -> list[Array]:
    """The arrays, those copied that cannot go by pointer together with the output.

    They take the memory order of `out`; without it, of x; or C order if x's own separates the channel axes.
    """
    if out is None:
        model = arrays["x"] = _by_pointer(arrays["x"], axis)
    else:
        model = _arrays.output(out, "out", arrays["x"])
        if not _go_together(axis, out):
            raise ValueError(
                f"out has strides {out.strides}, which cannot be written in place: it has to be dense in some order of "
                "its axes, the channel axes adjacent, or sliced along its outermost axes only"
            )
    together = [model]
    for name, array in arrays.items():
        if not (array.flags.aligned and _go_together(axis, *together, array)):
            if out is not None and np.may_share_memory(out, array):
                raise ValueError(f"out overlaps {name}, which cannot go to the library together with it")
            arrays[name] = empty_like(model)
            np.copyto(arrays[name], array)
        together.append(arrays[name])
    return list(arrays.values())


def _by_pointer(x: Array, axis: Axis) -> Array:
    if _go_together(axis, x):
        return x
    dense = x.copy(order="K")
    return dense if _go_together(axis, dense) else x.copy(order="C")


def _go_together(axis: Axis, *arrays: Array) -> bool:
    strides = dict.fromkeys(array.strides for array in arrays)
    return plan(arrays[0].shape, arrays[0].dtype, axis, *strides) is not None
