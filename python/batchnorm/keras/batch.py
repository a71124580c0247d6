# SPDX-License-Identifier: Apache-2.0
"""A batch as all back ends hand it to the layer, and its mask as the library takes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.structs import Outcome
from ..settings import Running

# A single value per channel is a batch of variance 0, as in Keras.
POLICY = Running(single_value="beta")


class Batch(NamedTuple):
    """A normalized batch. Its statistics are of float32, or float64 beside y of float64; 0 of nothing."""

    y: Any
    mean: Any
    variance: Any
    is_empty: bool = False

    @staticmethod
    def of(y: Any, mean: Any, variance: Any, saved: Any) -> Batch:
        """The batch of a call that was to write the two arrays: it does not if there is one value, or none."""
        if saved.outcome == Outcome.BETA:
            mean[...] = saved.mean
        return Batch(y, mean, variance, saved.outcome == Outcome.EMPTY)


def fits(mask: Any, x: Any, axis: int) -> bool:
    """True if a mask is one of all channels alike, which is what the library takes for weights."""
    shape, expected = tuple(mask.shape), tuple(x.shape[:-1])
    return axis == len(expected) == len(shape) and all(n in (1, m) for n, m in zip(shape, expected))
