# SPDX-License-Identifier: Apache-2.0
"""What backward() needs to know of the forward pass, besides x."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Doubles, address, doubles
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

    __slots__ = ("_both", "channels", "frozen", "invstd_address", "mean_address")

    def __init__(self, channel_shape: tuple[int, ...], frozen: bool) -> None:
        self._both = np.empty((2, *channel_shape))
        self.channels = self._both.size // 2
        self.frozen = frozen
        # One allocation for the two: its address is taken once, and nobody else can resize it.
        self.mean_address = address(self._both)
        self.invstd_address = self.mean_address + self._both.nbytes // 2

    @property
    def mean(self) -> Doubles:
        mean: Doubles = self._both[0]
        return mean

    @property
    def invstd(self) -> Doubles:
        invstd: Doubles = self._both[1]
        return invstd

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has addresses of its own."""
        return _rebuilt, (self.mean, self.invstd, self.frozen)

    def __repr__(self) -> str:
        return f"SavedStatistics(mean={self.mean}, invstd={self.invstd}, frozen={self.frozen})"


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
