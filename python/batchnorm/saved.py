# SPDX-License-Identifier: Apache-2.0
"""What backward() needs to know of the forward pass, besides x."""

from __future__ import annotations

import ctypes
import math
from ctypes import addressof
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Doubles, doubles
from .statistics import inverse_std


class SavedStatistics:
    """The mean and the inverse standard deviation that a forward pass normalized with.

    Attributes
    ----------
    mean, invstd : ndarray of float64
        One element per channel, in the shape of the channel axes.
    frozen : bool
        Whether they are constants to the gradient (running statistics) instead of functions of x (a batch's own).
    """

    _both: Any  # a C array, which the stubs of np.ndarray() do not take for a buffer

    __slots__ = ("_both", "channel_shape", "frozen", "invstd_address", "mean_address")

    def __init__(self, channel_shape: tuple[int, ...], frozen: bool) -> None:
        # One allocation for the two: its address is taken once, and nobody else can resize it. It becomes arrays when
        # somebody looks at them: a C array is there and tells its address in 0.06 µs, a new ndarray in 0.3.
        try:
            self._both = both = two_of(channel_shape)()
        except (MemoryError, OverflowError):
            raise MemoryError(f"there is no memory for the statistics of channels of shape {channel_shape}") from None
        self.channel_shape = channel_shape
        self.frozen = frozen
        self.mean_address = mean_address = addressof(both)
        self.invstd_address = mean_address + ctypes.sizeof(both) // 2

    @property
    def channels(self) -> int:
        return len(self._both) // 2

    @property
    def mean(self) -> Doubles:
        return np.ndarray(self.channel_shape, np.float64, self._both)

    @property
    def invstd(self) -> Doubles:
        return np.ndarray(self.channel_shape, np.float64, self._both, ctypes.sizeof(self._both) // 2)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has addresses of its own."""
        return _rebuilt, (self.mean, self.invstd, self.frozen)

    def __repr__(self) -> str:
        return f"SavedStatistics(mean={self.mean}, invstd={self.invstd}, frozen={self.frozen})"


@lru_cache(maxsize=128)
def two_of(shape: tuple[int, ...]) -> type[ctypes.Array[ctypes.c_double]]:
    """The type of a C array that holds two arrays of this shape."""
    return ctypes.c_double * (2 * math.prod(shape))


def _rebuilt(mean: Doubles, invstd: Doubles, frozen: bool) -> SavedStatistics:
    saved = SavedStatistics(mean.shape, frozen)
    saved.mean[...] = mean
    saved.invstd[...] = invstd
    return saved


def frozen_statistics(running_mean: ArrayLike, running_var: ArrayLike, eps: float = 1e-5) -> SavedStatistics:
    """The statistics that forward_inference() normalizes with, for backward().

    Parameters
    ----------
    running_mean, running_var : array_like, one element per channel
        As in forward_inference().
    eps : float, default 1e-5
        As in forward_inference().

    Returns
    -------
    SavedStatistics
        mean = running_mean and invstd = 1 / sqrt(running_var + eps), with `frozen` set.

    Raises
    ------
    TypeError
        An array is not of real numbers.
    ValueError
        The shapes differ, or `eps` is negative or not finite.
    """
    shape = np.shape(running_mean)
    mean = doubles(running_mean, "running_mean", shape)
    variance = doubles(running_var, "running_var", shape)
    return _rebuilt(mean, inverse_std(np.ones(shape), variance, eps), frozen=True)
