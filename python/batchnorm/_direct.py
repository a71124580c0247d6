# SPDX-License-Identifier: Apache-2.0
"""The short way to the library for what nearly all calls give: plain arrays, C-contiguous and writeable.

One look-up by shape, and an address for each tensor. What does not fit here, be it right or wrong, goes the long way
through _arrange, which finds out what is wrong with it: nothing is refused here but an axis that is out of range.

For 8x16x8x8 values of float32 forward_training() takes 5.2 µs this way, of which the library has 1.5 and ctypes 0.6.
It took 7.1 with a look-up by shape and strides and a call for each check and each address.
"""

from __future__ import annotations

from ctypes import addressof
from typing import Any

from numpy import empty, ndarray
from numpy.typing import ArrayLike

from . import _arrange
from ._arrays import REFUSAL, Array, at
from ._layout import Axis, Plan, as_axis, dense_plan


def forward(x: ArrayLike, axis: Axis, out: Array | None) -> tuple[Plan, Array, Array, int, int]:
    """x and y of a call, and their addresses. y is `out`, or a new dense array in x's memory order."""
    if type(axis) is not int:
        axis = as_axis(axis)
    if type(x) is ndarray and (out is None or _alike(out, x)):
        try:
            x_address = addressof(at(x))
            y_address = 0 if out is None else addressof(at(out))
        except REFUSAL:
            pass
        else:
            fit = dense_plan(x.shape, x.dtype, axis)
            if fit is not None:
                y = out
                if y is None:
                    y = empty(x.shape, x.dtype)
                    y_address = addressof(at(y))
                if not (x_address | y_address) & fit.misaligned:
                    return fit, x, y, x_address, y_address
    return _arrange.forward(x, axis, out)


def backward(
    dy: ArrayLike, x: ArrayLike, axis: Axis, out: Array | None
) -> tuple[Plan, Array, Array, Array, int, int, int]:
    """dy, x and dx of a call, and their addresses. dx is `out`, or a new dense array in x's memory order."""
    if type(axis) is not int:
        axis = as_axis(axis)
    if type(x) is ndarray and type(dy) is ndarray and _alike(dy, x) and (out is None or _alike(out, x)):
        try:
            dy_address, x_address = addressof(at(dy)), addressof(at(x))
            dx_address = 0 if out is None else addressof(at(out))
        except REFUSAL:
            pass
        else:
            fit = dense_plan(x.shape, x.dtype, axis)
            if fit is not None:
                dx = out
                if dx is None:
                    dx = empty(x.shape, x.dtype)
                    dx_address = addressof(at(dx))
                if not (dy_address | x_address | dx_address) & fit.misaligned:
                    return fit, dy, x, dx, dy_address, x_address, dx_address
    return _arrange.backward(dy, x, axis, out)


def _alike(array: Any, x: Array) -> bool:
    return type(array) is ndarray and array.shape == x.shape and array.dtype == x.dtype
