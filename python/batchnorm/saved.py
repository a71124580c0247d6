# SPDX-License-Identifier: Apache-2.0
"""What backward() needs to know of the forward pass, besides x."""

from __future__ import annotations

import ctypes
import math
from ctypes import addressof
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Doubles, doubles
from ._c_structs import Outcome
from ._weights import Counted
from .activations import Activation, Chosen, chosen
from .groups import Ghost, Groups, Segments, Split
from .sources import Source
from .statistics import inverse_std


class SavedStatistics:
    """The mean and the inverse standard deviation that a forward pass normalized with.

    Attributes
    ----------
    mean, invstd : ndarray of float64
        One element per channel, in the shape of the channel axes.
    frozen : bool
        Whether they are constants to the gradient (running statistics) instead of functions of x (a batch's own).

    With statistics per group, a row per group: mean and invstd are of shape (groups, channels). After a call with
    another `source` than the batch they are numbers that only backward() has a use for.

    Some are None unless the forward call was asked for them:

    outcome : Outcome, or ndarray of int32
        What became of the batch, or of each group (`running`).
    running_mean, running_var : ndarray
    num_batches : ndarray of int64
        What the call would have updated in place (`running` that is pure).
    bits : ndarray of uint8
        Where the gradient passes: a bit for each element in memory order, the first of a byte its lowest (`save_mask`).
    """

    _both: Any  # a C array, which the stubs of np.ndarray() do not take for a buffer
    _told: Told | None = None
    _outcomes: NDArray[np.int32] | None = None
    running_mean: Any = None
    running_var: Any = None
    num_batches: Any = None

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

    @property
    def is_plain(self) -> bool:
        """Whether the call normalized, scaled and shifted, and nothing else."""
        told = self._told
        if told is None:
            return True
        others = told.has_residual, told.counted, told.source, told.groups
        return told.activation.kind == told.activation.kind.IDENTITY and not any(others)

    @property
    def bits(self) -> NDArray[np.uint8] | None:
        return None if self._told is None else self._told.bits

    @property
    def outcome(self) -> Outcome | NDArray[np.int32] | None:
        if self._outcomes is None or self._has_rows():
            return self._outcomes
        return Outcome(int(self._outcomes[0]))

    def _has_rows(self) -> bool:
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has addresses of its own."""
        return _rebuilt, (self.mean, self.invstd, self.frozen)

    def __repr__(self) -> str:
        return f"SavedStatistics(mean={self.mean}, invstd={self.invstd}, frozen={self.frozen})"


class Told(NamedTuple):
    """What a forward call was told, as far as backward() has to know."""

    activation: Chosen = chosen(None)
    has_residual: bool = False
    residual: Any = None  # unless the gradient can do without
    beta: Any = None
    counted: Counted = Counted()
    source: Source | None = None
    of_source: Doubles | None = None
    groups: Groups | None = None
    bits: Any = None
    order: tuple[int, ...] = ()  # of the axes in memory, which is that of the bits
    shape: tuple[int, ...] | None = None  # of x, if it is known


class SavedCall(SavedStatistics):
    """The same of a call that was told something, all of which it remembers."""

    __slots__ = ("_outcomes", "_told", "num_batches", "running_mean", "running_var")

    def __init__(self, channel_shape: tuple[int, ...], frozen: bool) -> None:
        super().__init__(channel_shape, frozen)
        self._told = self._outcomes = self.running_mean = self.running_var = self.num_batches = None

    def _has_rows(self) -> bool:
        return self._told is not None and isinstance(self._told.groups, (Ghost, Segments, Split))

    def __reduce__(self) -> tuple[Any, ...]:
        return _recalled, (*super().__reduce__()[1], {name: getattr(self, name) for name in self.__slots__})


def _recalled(mean: Doubles, invstd: Doubles, frozen: bool, told: dict[str, Any]) -> SavedCall:
    saved = SavedCall(mean.shape, frozen)
    saved.mean[...] = mean
    saved.invstd[...] = invstd
    for name, value in told.items():
        setattr(saved, name, value)
    return saved


@lru_cache(maxsize=128)
def two_of(shape: tuple[int, ...]) -> type[ctypes.Array[ctypes.c_double]]:
    """The type of a C array that holds two arrays of this shape."""
    return ctypes.c_double * (2 * math.prod(shape))


def _rebuilt(mean: Doubles, invstd: Doubles, frozen: bool) -> SavedStatistics:
    saved = SavedStatistics(mean.shape, frozen)
    saved.mean[...] = mean
    saved.invstd[...] = invstd
    return saved


def frozen_statistics(
    running_mean: ArrayLike,
    running_var: ArrayLike,
    eps: float = 1e-5,
    *,
    activation: Activation | None = None,
    beta: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: str = "normalize",
    groups: Groups | None = None,
) -> SavedStatistics:
    """The statistics that forward_inference() normalizes with, for backward().

    Parameters
    ----------
    running_mean, running_var : array_like, one element per channel
        As in forward_inference().
    eps : float, default 1e-5
        As in forward_inference().
    activation, beta, residual, weights, lengths, masked, groups
        As in forward_inference(), if they were given there; backward() checks them. beta is needed with an activation.

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
    invstd = inverse_std(np.ones(shape), variance, eps)
    counted = Counted(weights, lengths, masked)
    if activation is None and residual is None and groups is None and not counted:
        return _rebuilt(mean, invstd, frozen=True)
    function = chosen(activation)
    # Ghost batches are none in inference.
    groups = None if isinstance(groups, Ghost) else groups
    needed = None if function.kind == function.kind.IDENTITY else residual
    told = Told(function, residual is not None, needed, beta, counted, groups=groups)
    return _recalled(mean, invstd, True, {"_told": told})
