# SPDX-License-Identifier: Apache-2.0
"""Statistics per channel: functions that take them, merge them, and keep a running average of them.

They are float64 arrays, one element per channel. `batchnorm.functional.steps` makes a layer of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrange import arrange
from .._core.arrays import Array, Doubles, address, doubles, running, tensor
from .._core.foreign import viewed
from .._core.layout import Axis, as_axis, channel_axes, plan
from .._core.library import lib
from .._core.options import DEFAULT_MOMENTUM, options, weight_of_new
from .._core.structs import PerGroup
from .._core.weights import PositionWeights, weighted
from ..settings.groups import Groups, grouping, options_of
from .moments import Moments as Moments
from .pooling import NAMES, Three, merged, pooled, room


def moments(
    x: ArrayLike,
    axis: Axis = 1,
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    groups: Groups | None = None,
) -> Moments:
    """The number of values, mean = sum(x) / count and m2 = sum((x - mean)**2), per channel; all 0 without values.

    With weights w, count = sum(w), mean = sum(w * x) / count and m2 = sum(w * (x - mean)**2).

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones.
    weights, lengths, groups
        As in forward_training(). Moments of each sample are those of Ghost(1).

    Returns
    -------
    Moments
        (count, mean, m2), float64 arrays in the shape of the channel axes; of groups that have statistics of their own,
        with a row for each: (groups, channels).

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training(); any number of values per channel will do.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> count, mean, m2 = bn.moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> print(count, mean, m2)
    [2. 2.] [2. 5.] [2. 0.]
    """
    if groups is None:
        return Moments(axis).update(x, weights, lengths=lengths)
    x = tensor(x, "x")
    group = grouping(groups, x.shape, channel_axes(as_axis(axis), x.ndim))
    tensors = arrange({"x": x}, {}, axis, samples_first=True)
    shape = weighted(tensors.fit.shape, PositionWeights(weights, lengths), tensors.arrays["x"], axis)
    rows = group.rows(PerGroup.STATISTICS) if group is not None else 0
    of_groups = room((rows, *tensors.fit.channel_shape) if rows else tensors.fit.channel_shape)
    given = tensors.fit.code, tensors.address("x")
    lib.bn_moments(shape, *given, *map(address, of_groups), 0, options_of(group))
    return Moments(axis)._with(of_groups)


def merge_moments(parts: Moments | Iterable[Moments | Sequence[ArrayLike]]) -> Moments:
    """Moments of the union of disjoint parts, merged in the order given (Chan, Golub and LeVeque, 1979).

    Parameters
    ----------
    parts : iterable of Moments or (count, mean, m2), or an array of shape (parts, 3, channels)
        At least one, all of one shape. A part may be empty. An array of float64, as an all-gather delivers it, goes to
        the library as it is. The groups of ``bn.moments(x, groups=...)`` are merged by ``zip(*moments)``.

    Returns
    -------
    Moments
        The axis of the first part that is a Moments, or 1.

    Raises
    ------
    ValueError
        There are no parts, a part is not three arrays, their shapes differ, or a count is negative or not finite.

    Examples
    --------
    >>> import batchnorm as bn
    >>> count, mean, m2 = bn.merge_moments([([2.0], [3.0], [2.0]), ([2.0], [7.0], [8.0])])
    >>> print(count, mean, m2)
    [4.] [5.] [26.]
    """
    if isinstance(parts, np.ndarray) and _is_of_rows(parts):
        return Moments()._with(merged(np.require(parts, np.float64, ["C", "A"])))
    given = list((parts,) if isinstance(parts, Moments) else parts)
    # Moments that know of no channels are no part.
    threes = [tuple(part) for part in given if not isinstance(part, Moments) or part._three is not None]
    if not threes:
        raise ValueError("parts is empty: without a part the number of channels is not known")
    rows: list[Three] = []
    for number, part in enumerate(threes):
        if len(part) != 3 or np.ndim(part[0]) == 0:
            raise ValueError(f"part {number} is {part}, expected arrays of count, mean and m2, one element per channel")
        shape = np.shape(threes[0][0])
        count, mean, m2 = (doubles(a, f"{name} of part {number}", shape).reshape(shape) for a, name in zip(part, NAMES))
        rows.append((count, mean, m2))
    axis = next((part.axis for part in given if isinstance(part, Moments)), 1)
    return Moments(axis)._with(pooled(rows))


def _is_of_rows(parts: Array) -> bool:
    return parts.ndim > 2 and parts.shape[1] == 3 and parts.dtype == np.float64 and parts.size > 0


def inverse_std(count: ArrayLike, m2: ArrayLike, eps: float = 1e-5) -> Doubles:
    """invstd = 1 / sqrt(m2 / count + eps), or 0 where that would divide by 0.

    Parameters
    ----------
    count, m2 : array_like of real numbers
        As from moments(), of one shape. A count is at least 0.
    eps : float, default 1e-5
        Added to the variance.

    Returns
    -------
    ndarray of float64
        In the shape of m2.

    Raises
    ------
    ValueError
        The shapes differ, or a count or `eps` is negative or not finite.
    TypeError
        An array is not of real numbers.

    Examples
    --------
    >>> import batchnorm as bn
    >>> print(bn.inverse_std([4, 0], [16, 0], eps=0))
    [0.5 0. ]
    """
    shape = np.shape(m2)
    count = doubles(count, "count", shape)
    m2 = doubles(m2, "m2", shape)
    invstd = np.empty(shape)
    lib.bn_inverse_std(invstd.size, address(count), address(m2), address(invstd), options(eps))
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
    """Moves running statistics, in place, towards the moments of a batch, as forward_training() does.

    Channels with a count of 0 stay as they are.

    Parameters
    ----------
    running_mean, running_var : ndarray of float32, float64, float16 or bfloat16
        One element per channel, both in one dtype.
    count, mean, m2 : array_like of real numbers
        As from moments(), one element per channel.
    momentum, decay, unbiased
        As in forward_training().

    Raises
    ------
    ValueError
        The shapes differ, running statistics are read-only or overlap, a count is out of its range (with `unbiased` 1
        is, and all below), or `momentum` and `decay` are.
    TypeError
        A dtype is another, or running statistics are no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> bn.update_running(mean, var, *bn.moments(np.array([[1.0, 5.0], [3.0, 5.0]])), momentum=0.5)
    >>> print(mean, var)
    [1.  2.5] [1.5 0.5]
    """
    # Views have to live as long as the call.
    names = "running_mean", "running_var"
    running_mean, running_var = viewed(*names, running_mean=running_mean, running_var=running_var)
    like = np.empty_like(tensor(running_mean, "running_mean"), order="C")
    fit = plan(like.shape, like.dtype, tuple(range(like.ndim)), like.strides)
    assert fit is not None, "a C-contiguous array fits"
    fit = fit.beside(like)
    mean_address = running(running_mean, "running_mean", fit)
    var_address = running(running_var, "running_var", fit, of="running_mean")
    values = {"count": count, "mean": mean, "m2": m2}
    statistics = [doubles(value, name, fit.channel_shape) for name, value in values.items()]
    known = options(momentum=weight_of_new(momentum, decay), unbiased=unbiased)
    lib.bn_update_running(fit.channels, fit.code, *map(address, statistics), mean_address, var_address, known)
