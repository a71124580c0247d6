# SPDX-License-Identifier: Apache-2.0
"""Statistics per channel: taking them, merging them, and keeping a running average of them.

They are float64 arrays, one element per channel. `steps` tells how they make up a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _arrange
from ._arrays import Array, Doubles, address, as_bfloat16, doubles, running, tensor
from ._c_api import lib, raise_error
from ._layout import Axis, plan
from ._options import DEFAULT_MOMENTUM, options, weight_of_new
from ._weights import Counted, weighted


class Moments(NamedTuple):
    """Number of values, mean, and sum of squared deviations from the mean, per channel."""

    count: Doubles  # type: ignore[assignment]  # not tuple.count()
    mean: Doubles
    m2: Doubles


def moments(
    x: ArrayLike,
    axis: Axis = 1,
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
) -> Moments:
    """Number of values, mean = sum(x) / count and m2 = sum((x - mean)**2), per channel. Of nothing: 0, 0 and 0.

    With weights w, count = sum(w), mean = sum(w * x) / count and m2 = sum(w * (x - mean)**2).

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones.
    weights, lengths, dtype
        As in forward_training().

    Returns
    -------
    Moments
        (count, mean, m2), float64 arrays in the shape of the channel axes.
    """
    x = x if dtype is None else as_bfloat16(x, "x", dtype)
    fit, x, x_address = _arrange.one(x, axis)
    shape = weighted(fit.shape, Counted(weights, lengths), x, axis)
    result = Moments(*np.empty((3, *fit.channel_shape)))
    status = lib.bn_moments(shape, fit.code, x_address, *map(address, result))
    if status:
        raise_error(status)
    return result


def merge_moments(parts: Moments | Iterable[Sequence[ArrayLike]]) -> Moments:
    """Moments of the union of disjoint parts, merged in the order given (Chan, Golub and LeVeque, 1979).

    Parameters
    ----------
    parts : iterable of (count, mean, m2), or an array of shape (parts, 3, channels)
        At least one, all of one shape. A part may be empty.

    Raises
    ------
    ValueError
        There are no parts, a part is not three arrays, their shapes differ, or a count is negative or not finite.
    """
    given = [tuple(part) for part in ((parts,) if isinstance(parts, Moments) else parts)]
    if not given:
        raise ValueError("parts is empty: without a part the number of channels is not known")
    for number, part in enumerate(given):
        if len(part) != 3 or np.ndim(part[0]) == 0:
            raise ValueError(f"part {number} is {part}, expected arrays of count, mean and m2, one element per channel")
    shape = np.shape(given[0][0])
    rows = [
        np.stack(
            [doubles(part[i], f"{name} of part {number}", shape).reshape(shape) for number, part in enumerate(given)]
        )
        for i, name in enumerate(Moments._fields)
    ]
    result = Moments(*np.empty((3, *shape)))
    status = lib.bn_merge_moments(len(given), result.mean.size, *map(address, rows), *map(address, result))
    if status:
        raise_error(status)
    return result


def inverse_std(count: ArrayLike, m2: ArrayLike, eps: float = 1e-5) -> Doubles:
    """invstd = 1 / sqrt(m2 / count + eps), and 0 where that would divide by 0.

    Raises
    ------
    ValueError
        The shapes differ, or `eps` is negative or not finite.
    """
    shape = np.shape(m2)
    count = doubles(count, "count", shape)
    m2 = doubles(m2, "m2", shape)
    invstd = np.empty(shape)
    status = lib.bn_inverse_std(invstd.size, address(count), address(m2), address(invstd), options(eps))
    if status:
        raise_error(status)
    return invstd


def update_running(
    running_mean: Array,
    running_var: Array,
    count: ArrayLike,
    mean: ArrayLike,
    m2: ArrayLike,
    *,
    momentum: float = DEFAULT_MOMENTUM,
    decay: float | None = None,
    unbiased: bool = True,
) -> None:
    """Moves running statistics towards the moments of a batch, as forward_training() does. In place.

    Channels with a count of 0 stay as they are.
    """
    like = np.empty_like(tensor(running_mean, "running_mean"), order="C")
    fit = plan(like.shape, like.dtype, tuple(range(like.ndim)), like.strides)
    assert fit is not None, "a C-contiguous array fits"
    fit = fit.beside(like)
    mean_address = running(running_mean, "running_mean", fit)
    var_address = running(running_var, "running_var", fit)
    values = {"count": count, "mean": mean, "m2": m2}
    statistics = [doubles(value, name, fit.channel_shape) for name, value in values.items()]
    chosen = options(momentum=weight_of_new(momentum, decay), unbiased=unbiased)
    status = lib.bn_update_running(fit.channels, fit.code, *map(address, statistics), mean_address, var_address, chosen)
    if status:
        raise_error(status)
