# SPDX-License-Identifier: Apache-2.0
"""Moments as three arrays per part, and how the library pools parts (Chan, Golub and LeVeque, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core.arrays import Doubles, address
from .._core.layout import Axis
from .._core.library import lib
from .._core.options import at_least_one

Three = tuple[Doubles, Doubles, Doubles]
NAMES = ("count", "mean", "m2")


def pooled(parts: Sequence[Three]) -> Three:
    """New arrays of the moments of disjoint parts, which are of one shape."""
    return merged(np.array(parts))


def merged(rows: Doubles) -> Three:
    """The same of rows that lie one after the other: a dense array of shape (parts, 3, channels)."""
    result = room(rows.shape[2:])
    count, channels = len(rows), result[0].size
    firsts = [address(rows) + 8 * channels * array for array in range(3)]
    lib.bn_merge_moments(count, channels, *firsts, 3 * channels, *map(address, result))
    return result


def room(shape: tuple[int, ...], made: Any = np.empty) -> Three:
    count, mean, m2 = made((3, *shape))
    return count, mean, m2


def extents(num_features: int | tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    extents = num_features if isinstance(num_features, tuple) else (num_features,)
    if len(extents) != (len(axis) if isinstance(axis, tuple) else 1):
        raise ValueError(f"num_features is {num_features} and axis is {axis}, expected as many of one as of the other")
    return tuple(at_least_one(n, "num_features") for n in extents)
