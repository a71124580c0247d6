# SPDX-License-Identifier: Apache-2.0
"""Parameters as they are at the moment of a call, in bytes that nobody can change, free or describe anew.

The library reads gamma and beta from such bytes, and `saved` keeps them for backward(): both know the same numbers. An
address of the caller's array would be good only as long as that array lives and stays what it is, which another thread
may end; and to find it takes longer than to copy the bytes of some hundred channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from .arrays import parameter
from .layout import Plan, as_axis, channel_axes, code_of

FEW = 4096  # channels, whose bytes are copied in less time than it takes to find an array's address


def held(value: Any, name: str, plan: Plan) -> bytes | None:
    """The numbers of gamma or beta, checked, in the order of their channels."""
    if type(value) is ndarray and value.dtype is plan.param and value.shape == plan.channel_shape:
        return value.tobytes()
    array, _ = parameter(value, name, plan)
    return None if array is None else array.tobytes()


def read_only(value: Any, name: str, plan: Plan) -> tuple[Any, Any]:
    """An array that a call only reads: the object that has to live as long as the call, and its address."""
    if plan.channels > FEW:
        return parameter(value, name, plan)
    data = held(value, name, plan)
    return data, data


def array_of(data: bytes | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The numbers as an array, which is read-only."""
    return None if data is None else np.ndarray(shape, dtype, data)


def check_again(given: Any, data: bytes | None, name: str, plan: Plan) -> None:
    """Compares a gamma that is given to backward() again with that of the forward call, where None stands for 1."""
    if given is None:
        return
    again = held(given, name, plan)
    if again == data:
        return
    reason = "as in the forward call"
    if data is None:
        data, reason = np.ones(plan.channel_shape, plan.param).tobytes(), f"as the forward call had no {name}"
    found, expected = (np.ndarray(plan.channel_shape, plan.param, each) for each in (again, data))
    differs = ~((found == expected) | ((found != found) & (expected != expected)))
    if differs.any():
        where = tuple(np.argwhere(differs)[0].tolist())
        place = where[0] if len(where) == 1 else where
        raise ValueError(
            f"{name} is {float(found[where]):g} in channel {place}, expected {float(expected[where]):g}, {reason}"
        )


def check_axis_again(given: Any, axis: Any, rank: int) -> None:
    """An error unless the axis given is the forward call's; either of them may be counted from the end."""
    if channel_axes(as_axis(given), rank) != channel_axes(axis, rank):
        raise ValueError(f"axis is {given}, expected {axis}, the axis of the forward call")


def check_x(x: NDArray[Any], shape: tuple[int, ...] | None, dtype: np.dtype[Any] | None) -> None:
    """An error unless x can be that of a forward call, as far as its shape and dtype are known."""
    if shape is not None and x.shape != shape:
        raise ValueError(f"x has shape {x.shape}, expected {shape}, that of the forward call")
    if dtype is not None and code_of(x.dtype) != code_of(dtype):
        raise TypeError(f"x has dtype {x.dtype}, expected {dtype}, that of the forward call")
