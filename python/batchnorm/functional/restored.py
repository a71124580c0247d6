# SPDX-License-Identifier: Apache-2.0
"""Saved statistics from a pickle. The library reads as many numbers as it is told: all have to be there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Doubles
from .._core.layout import as_axis, channel_axes, code_of
from .._core.structs import Activation
from .._core.weights import PositionWeights
from ..settings.activations import ResolvedActivation
from ..settings.groups import rows_of
from .extras import SavedExtras

# The arguments that saved statistics are made with, and what a call with extras may have updated.
PLAIN = ("axis", "beta", "channel_shape", "dtype", "frozen", "gamma", "param", "shape")
UPDATED = ("running_mean", "running_var", "num_batches")


class Restored(NamedTuple):
    """A state in its parts, which are those of a forward call."""

    mean: Doubles
    invstd: Doubles
    plain: dict[str, Any]
    extras: SavedExtras | None = None
    outcomes: Any = None
    updated: tuple[Any, ...] = ()


def restored(attributes: dict[str, Any]) -> Restored:
    """The parts of a state; an error if no forward call can have written them."""
    parts = _parts(dict(attributes))
    _check(parts, parts.plain, parts.extras)
    return parts


def _parts(own: dict[str, Any]) -> Restored:
    mean, invstd, call = (own.pop(name) for name in ("mean", "invstd", "call"))
    if mean.shape != invstd.shape:
        raise TypeError(f"mean has shape {mean.shape}, and invstd {invstd.shape}")
    plain = {name: own[name] for name in PLAIN}
    if call is None:
        return Restored(mean, invstd, plain)
    extras = call["extras"]
    kind, *numbers = extras["activation"]
    activation = ResolvedActivation(Activation(kind), *numbers)
    positions = PositionWeights(*extras["positions"])
    known = SavedExtras(**{**extras, "activation": activation, "positions": positions})
    return Restored(mean, invstd, plain, known, call["outcomes"], tuple(call[name] for name in UPDATED))


def _check(parts: Restored, plain: dict[str, Any], extras: SavedExtras | None) -> None:
    channel_shape = _lengths(plain["channel_shape"], "channel_shape")
    _expect(parts.mean.shape == channel_shape, "mean has another shape")
    if extras is not None and extras.of_source is not None:
        _expect(_is_dense(extras.of_source, np.float64, 4 * math.prod(channel_shape)), "of_source has another shape")
    dtype, param = plain["dtype"], plain["param"]
    if dtype is None:
        return  # of frozen_statistics(), whose arrays each call looks at
    shape = _lengths(plain["shape"], "shape")
    _expect(code_of(dtype) is not None, "dtype is none of the library's")
    _expect(isinstance(param, np.dtype) and code_of(param) is not None, "param is none of the library's")
    own = tuple(shape[axis] for axis in channel_axes(as_axis(plain["axis"]), len(shape)))
    has_rows = extras is not None and extras.has_rows
    _expect(channel_shape[has_rows:] == own, f"{channel_shape} are no channels of shape {shape}")
    rows = rows_of(extras.groups)[0] if extras is not None else 0
    _expect(extras is None or extras.rows == rows, "rows are not those of the groups")
    size = math.prod(own) * max(rows, 1) * param.itemsize
    for name in ("gamma", "beta"):
        data = plain[name]
        _expect(data is None or (type(data) is bytes and len(data) == size), f"{name} is not {size} bytes")
    if extras is not None and extras.bits is not None:
        _expect(_is_dense(extras.bits, np.uint8, (math.prod(shape) + 7) // 8), "bits are not one for each element")


def _expect(condition: bool, said: str) -> None:
    if not condition:
        raise ValueError(f"this state of a SavedStatistics is damaged: {said}")


def _lengths(shape: Any, name: str) -> tuple[int, ...]:
    fine = type(shape) is tuple and all(type(length) is int and length >= 0 for length in shape)
    _expect(fine, f"{name} is {shape!r}, expected whole numbers")
    return shape  # type: ignore[no-any-return]


def _is_dense(array: Any, dtype: Any, size: int) -> bool:
    return type(array) is np.ndarray and array.dtype == dtype and array.size == size and array.flags.c_contiguous
