# SPDX-License-Identifier: Apache-2.0
"""Statistics sample by sample, for a batch whose bits must not depend on how it is parted.

A sum of floating-point numbers depends on the order in which they are added up. So every process keeps to the order of
the samples in the whole batch: it takes the moments of each of its samples, all processes give each other those rows,
and each merges them one by one. Any number of processes then has the same bits, if samples lie in memory in the same
way everywhere. What is exchanged grows with the number of samples: three numbers for each of them and each channel
forward, two backward, and their number first.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import Array, Doubles
from .._core.layout import Axis
from ..settings.groups import Conditional, Ghost
from ..statistics.functions import moments
from .steps import backward_reduce

# From an array of shape (k, channels) to one of shape (processes, k, channels), the same on all processes.
Gather = Callable[[Doubles], Doubles]


def moments_of_samples(x: Array, axis: Axis, **positions: Any) -> Doubles:
    """Count, mean and m2 of each sample: (samples, 3, channels). `positions` are weights and lengths of moments()."""
    return _rows(moments(x, axis, groups=Ghost(1), **positions), len(x))


def sums_of_samples(
    dy: ArrayLike, x: Array, mean: ArrayLike, invstd: ArrayLike, *, axis: Axis, **positions: Any
) -> Doubles:
    """sum(dy) and sum(dy * x_hat) of each sample, whose statistics are the batch's: (samples, 2, channels)."""
    each = Conditional(np.arange(len(x)), max(len(x), 1))
    return _rows(backward_reduce(dy, x, mean, invstd, axis=axis, groups=each, **positions), len(x))


def _rows(arrays: Any, samples: int) -> Doubles:
    """Arrays with a row for each sample, as one; an empty batch has a row too, of zeros."""
    count = max(samples, 1)
    return np.stack([each.reshape(count, -1) for each in arrays], axis=1)[:samples]


def gathered_samples(
    gather: Gather, rows: Doubles, counts: tuple[int, ...] | None = None
) -> tuple[Doubles, tuple[int, ...]]:
    """The rows of all samples of all processes, in their order, and how many each process has.

    Parameters
    ----------
    gather : callable
        Takes a float64 array of shape (k, channels), and returns those of all processes, in the same order on each of
        them, as one of shape (processes, k, channels).
    rows : ndarray of float64
        Of this process's samples, of which there may be none: (samples, arrays, channels).
    counts : tuple of int, optional
        The numbers of samples, if they are known from an earlier step. Otherwise they are exchanged first.
    """
    _, arrays, channels = rows.shape
    if counts is None:
        counts = tuple(int(each[0, 0]) for each in gather(np.full((1, channels), float(len(rows)))))
    most = max(counts)
    if most == 0:
        return rows, counts
    padded = np.zeros((most, arrays, channels))
    padded[: len(rows)] = rows
    found = gather(padded.reshape(-1, channels)).reshape(len(counts), most, arrays, channels)
    return np.concatenate([part[:count] for part, count in zip(found, counts)]), counts


def added(rows: Doubles) -> Doubles:
    """The sum of rows, one after the other: sum() of NumPy would choose an order by itself. Of no rows, zeros."""
    sums: Doubles = np.add.accumulate(rows)[-1] if len(rows) else np.zeros(rows.shape[1:])
    return sums
