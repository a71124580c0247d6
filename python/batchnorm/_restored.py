# SPDX-License-Identifier: Apache-2.0
"""Saved statistics that come from a pickle. The library reads as many numbers as it is told: all have to be there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layout import as_axis, channel_axes, code_of
from .groups import rows_of

if TYPE_CHECKING:
    from .saved import SavedStatistics


def check_restored(saved: SavedStatistics) -> None:
    """ValueError if what was written by a forward call cannot have been this."""
    _expect(
        len(saved._both) == 2 * math.prod(_lengths(saved._channel_shape, "channel_shape")), "mean has another shape"
    )
    told = saved._told
    if told is not None and told.of_source is not None:
        _expect(_is_dense(told.of_source, np.float64, 4 * saved.channels), "of_source has another shape")
    if saved._dtype is None:
        return  # of frozen_statistics(), whose arrays each call looks at
    shape, param = _lengths(saved._shape, "shape"), saved._param
    _expect(code_of(saved._dtype) is not None, "dtype is none of the library's")
    _expect(isinstance(param, np.dtype) and code_of(param) is not None, "param is none of the library's")
    own = tuple(shape[axis] for axis in channel_axes(as_axis(saved._axis), len(shape)))
    has_rows = saved._has_rows()
    _expect(saved._channel_shape[has_rows:] == own, f"{saved._channel_shape} are no channels of shape {shape}")
    rows = rows_of(told.groups)[0] if told is not None else 0
    _expect(told is None or told.rows == rows, "rows are not those of the groups")
    assert param is not None
    size = math.prod(own) * max(rows, 1) * param.itemsize
    for name, data in (("gamma", saved._gamma), ("beta", saved._beta)):
        _expect(data is None or (type(data) is bytes and len(data) == size), f"{name} is not {size} bytes")
    if told is not None and told.bits is not None:
        _expect(_is_dense(told.bits, np.uint8, (math.prod(shape) + 7) // 8), "bits are not one for each element")


def _expect(condition: bool, said: str) -> None:
    if not condition:
        raise ValueError(f"this state of a SavedStatistics is damaged: {said}")


def _lengths(shape: Any, name: str) -> tuple[int, ...]:
    fine = type(shape) is tuple and all(type(length) is int and length >= 0 for length in shape)
    _expect(fine, f"{name} is {shape!r}, expected whole numbers")
    return shape  # type: ignore[no-any-return]


def _is_dense(array: Any, dtype: Any, size: int) -> bool:
    return type(array) is np.ndarray and array.dtype == dtype and array.size == size and array.flags.c_contiguous
