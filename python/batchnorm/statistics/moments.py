# SPDX-License-Identifier: Apache-2.0
"""Count, mean and sum of squared deviations per channel, of values that come in parts.

Parts are pooled as one set of values: the variance is that of all of them, that between the parts included, whatever
their sizes (Chan, Golub and LeVeque, 1979).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Union

import numpy as np
from numpy.typing import ArrayLike

from .._core import direct
from .._core.arrays import Doubles, address, doubles
from .._core.layout import Axis, as_axis, channel_axes
from .._core.library import lib
from .._core.options import at_least_one, flag, options
from .._core.pickling import Versioned
from .._core.public import publish
from .._core.weights import PositionWeights, weighted
from .pooling import NAMES, Three, extents, pooled, room
from .streaming import opened, slices

Self = TypeVar("Self", bound="Moments")
Path = Union[str, "os.PathLike[str]"]


@publish
class Moments(Versioned):
    """The number of values, their mean, and the sum of squared deviations from it, per channel; more values may come.

    They unpack, index and convert as three arrays: ``count, mean, m2 = moments``. ``a + b`` are new moments of the
    values of both, so that sum() merges parts. Moments are equal if they have the same channels and the same numbers (a
    NaN is the same as a NaN), along whatever axis. As more values may come, they cannot be hashed.

    Parameters
    ----------
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones, of what update() is given.
    num_features : int or tuple of int, optional
        Number of channels; for a group of channel axes, the length of each. Without it the first update() tells.

    Attributes
    ----------
    count, mean, m2 : ndarray of float64, in the shape of the channel axes
        sum(w), sum(w * x) / count and sum(w * (x - mean)**2), where weights w are 1 unless they were given; 0 of
        nothing. Later updates replace these arrays and leave those alone that were handed out.

    Raises
    ------
    RuntimeError
        By reading, as long as the number of channels is not known.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> seen = bn.Moments()
    >>> for part in ([[1.0, 5.0]], [[2.0, 5.0], [6.0, 5.0]]):
    ...     seen = seen.update(np.array(part))
    >>> seen
    Moments(channels=2, values=3)
    >>> print(seen.mean, seen.var(unbiased=True))
    [3. 5.] [7. 0.]
    >>> sum(bn.moments(np.array([row])) for row in ([1.0, 5.0], [2.0, 5.0], [6.0, 5.0])) == seen
    True
    """

    __array_ufunc__ = None  # NumPy would add arrays to them as to an array of three rows

    def __init__(self, axis: Axis = 1, num_features: int | tuple[int, ...] | None = None) -> None:
        self.axis = as_axis(axis)
        self._three: Three | None = None
        self._views: tuple[Three, Three] | None = None
        if num_features is not None:
            self._three = room(extents(num_features, self.axis), np.zeros)

    @classmethod
    def of(cls: type[Self], count: ArrayLike, mean: ArrayLike, m2: ArrayLike, axis: Axis = 1) -> Self:
        """Moments of a count, means and sums that were computed elsewhere. The arrays are copied.

        Parameters
        ----------
        count, mean, m2 : array_like, one element per channel, of one shape
            Counts are finite and at least 0; m2 is at least 0 or NaN.
        axis
            As of the class.

        Examples
        --------
        >>> import batchnorm as bn
        >>> print(bn.Moments.of([4, 2], [1, 1], [8, 1]).var())
        [2.  0.5]
        """
        shape = np.shape(mean)
        if not shape or 0 in shape:
            raise ValueError(f"mean has shape {shape}, expected one element per channel")
        given = [np.array(doubles(a, n, shape)).reshape(shape) for a, n in zip((count, mean, m2), NAMES)]
        for values, name, fit, expected in (
            (given[0], "count", (given[0] >= 0) & (given[0] < math.inf), "finite numbers of at least 0"),
            (given[2], "m2", ~(given[2] < 0), "numbers of at least 0, or NaN"),
        ):
            if not fit.all():
                raise ValueError(f"{name} has a value {values[~fit][0]:g}, expected {expected}")
        return cls(axis)._with((given[0], given[1], given[2]))

    @classmethod
    def stream(
        cls: type[Self],
        x: Path | ArrayLike,
        axis: Axis = 1,
        *,
        chunk_bytes: int = 64 << 20,
        progress: bool | None = False,
    ) -> Self:
        """Moments of an array that may be larger than memory, read once and in the order of its bytes.

        It is taken in slices of the axis that is outermost in memory, the channel axis too. They go to the library by
        pointer where the array could; else one slice at a time is copied.

        Parameters
        ----------
        x : array_like as update() takes it, or the path of a .npy file
            An array may be a numpy.memmap. A file is mapped, read-only; as with any map, it must not be cut off
            meanwhile. bfloat16 is read from a file as ml_dtypes writes it, as V2. For a file of its bits in uint16,
            give the map's `.view("V2")`.
        axis
            As of the class.
        chunk_bytes : int, default 64 MiB
            About the size of a slice, which is at least one index.
        progress : bool or None, default False
            True for a bar of tqdm. None: if stderr is a terminal and tqdm is installed.

        Raises
        ------
        ValueError
            The file is cut off, or cannot be mapped; or a reason of update().
        TypeError
            The dtype is none of update()'s: complex, or in another byte order.
        OSError
            The file cannot be opened.

        Examples
        --------
        >>> import numpy as np
        >>> import batchnorm as bn
        >>> x = np.arange(24.0).reshape(4, 2, 3)
        >>> print(bn.Moments.stream(x, chunk_bytes=100).mean)
        [10. 13.]
        """
        axis, size = as_axis(axis), at_least_one(chunk_bytes, "chunk_bytes")
        array = opened(x)
        axes = channel_axes(axis, array.ndim)
        outermost, parts = slices(array, size, progress)
        if outermost not in axes:
            result = cls(axis)
            for part in parts:
                result.update(part)
            return result
        of_channels = [cls(axis).update(part) for part in parts]
        count, mean, m2 = (np.concatenate(each, axes.index(outermost)) for each in zip(*of_channels))
        return cls(axis)._with((count, mean, m2))

    def update(
        self: Self,
        x: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> Self:
        """Adds the values of x, and returns these moments. After an error they are as before.

        Parameters
        ----------
        x : array_like of float32, float64, float16 or bfloat16
            It may have any shape with these channels, and may be empty.
        weights, lengths
            As in forward_training().

        Raises
        ------
        ValueError
            x has other channels than the values before, or forward_training() would refuse these arguments.
        TypeError
            A dtype is none of these.
        """
        fit, x, x_address = direct.one(x, self.axis)
        self._fits(fit.channel_shape, f"x has channels of shape {fit.channel_shape} at axis {self.axis}")
        shape = weighted(fit.shape, PositionWeights(weights, lengths), x, self.axis)
        part = room(fit.channel_shape)
        lib.bn_moments(shape, fit.code, x_address, *map(address, part), 0, None)
        return self._with(part if self._three is None else pooled([self._three, part]))

    def merge(self: Self, other: Moments | Sequence[ArrayLike]) -> Self:
        """Adds the values of other moments, and returns these moments. After an error they are as before.

        Parameters
        ----------
        other : Moments, or three arrays as of() takes them
            They have the same channels, along any axis, and stay as they are.
        """
        if not isinstance(other, Moments):
            try:
                three = tuple(other)
            except TypeError:
                kind = type(other).__name__
                raise TypeError(f"other is of type {kind}, expected Moments, or arrays of count, mean and m2") from None
            if len(three) != 3:
                raise ValueError(f"other is of {len(three)} parts, expected count, mean and m2")
            try:
                other = Moments.of(*three)
            except (TypeError, ValueError) as error:
                raise type(error)(f"other's {error}") from None
        if other._three is None:
            return self
        shape = other.mean.shape
        self._fits(shape, f"other has channels of shape {shape}")
        return self._with(pooled([other._three] if self._three is None else [self._three, other._three]))

    @property
    def count(self) -> Doubles:
        return self._handed_out()[0]

    @property
    def mean(self) -> Doubles:
        return self._handed_out()[1]

    @property
    def m2(self) -> Doubles:
        return self._handed_out()[2]

    def var(self, unbiased: bool = False) -> Doubles:
        """m2 / count, or unbiased m2 / (count - 1).

        NaN, without a warning, where there are no values, and unbiased where the count is 1 or less.
        """
        count, _, m2 = self._known()
        over = count - 1 if flag(unbiased, "unbiased") else count
        var = np.full(m2.shape, np.nan)
        with np.errstate(all="ignore"):
            np.divide(m2, over, out=var, where=over > 0)
        return var

    def std(self, unbiased: bool = False) -> Doubles:
        """The square root of var(), and NaN where that is."""
        with np.errstate(all="ignore"):
            std: Doubles = np.sqrt(self.var(unbiased))
        return std

    def invstd(self, eps: float = 1e-5) -> Doubles:
        """1 / sqrt(m2 / count + eps), as inverse_std() has it: no values count as variance 0, and 1 / 0 is 0."""
        count, _, m2 = self._known()
        invstd = np.empty(m2.shape)
        lib.bn_inverse_std(invstd.size, address(count), address(m2), address(invstd), options(eps))
        return invstd

    def __add__(self: Self, other: object) -> Self:
        if not isinstance(other, Moments):
            return NotImplemented
        total = type(self)(self.axis)
        return total.merge(self).merge(other)

    def __radd__(self: Self, other: object) -> Self:
        """sum() begins with 0."""
        if isinstance(other, int) and other == 0:
            return type(self)(self.axis).merge(self)
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        if self._three is None or other._three is None:
            return self._three is other._three
        return all(np.array_equal(mine, theirs, equal_nan=True) for mine, theirs in zip(self._three, other._three))

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Doubles]:
        return iter(self._handed_out())

    def __getitem__(self, index: Any) -> Any:
        return self._handed_out()[index]

    def _handed_out(self) -> Three:
        """Views, so that whoever gives one another dtype or shape does not change what later calls read."""
        three, shown = self._known(), self._views
        if shown is None or shown[0] is not three:
            self._views = shown = three, (three[0].view(), three[1].view(), three[2].view())
        return shown[1]

    def __repr__(self) -> str:
        if self._three is None:
            return "Moments(channels=None, values=0)"
        shape = self.mean.shape
        least, most = (f"{n:.15g}" for n in (self.count.min(), self.count.max()))
        values = least if least == most else f"{least} to {most}"
        return f"Moments(channels={shape[0] if len(shape) == 1 else shape}, values={values})"

    def _with(self: Self, three: Three) -> Self:
        self._three = three
        return self

    def _known(self) -> Three:
        if self._three is None:
            raise RuntimeError("the number of channels is not known before update() or merge(), without num_features")
        return self._three

    def _fits(self, shape: tuple[int, ...], given: str) -> None:
        if self._three is not None and shape != self._three[0].shape:
            raise ValueError(f"{given}, expected {self._three[0].shape}, the shape of these moments")
