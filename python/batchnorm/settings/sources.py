# SPDX-License-Identifier: Apache-2.0
"""Sources of the statistics that x is normalized with in training, other than its own mean and variance alone.

All of them need the running statistics as they are before the call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

import numpy as np

from .._core import structs
from .._core.arrays import Array, Doubles, address
from .._core.layout import Axis, as_axis, channel_axes
from .._core.options import number
from .._core.pickling import Versioned
from .._core.public import publish
from .._core.structs import sized


@publish
@dataclass(frozen=True, repr=False)
class Blend(Versioned):
    """A mean of the running statistics and the batch's, for adaptation at test time (arXiv:2006.16971).

    ::

        (P * running + M * batch) / (P + M)        for mean and biased variance, M values per channel in the batch

    P is how many values per channel the running statistics count as, for which there are two ways to say it. It is a
    way to train: adapt with momentum 0, so that the running statistics stay as they are; a layer does so after train(),
    not after eval(). A batch of one value per channel is blended as any other, if P is above 0, but does not move the
    running statistics (Outcome.BLENDED).

    Parameters
    ----------
    pseudo_count : float, optional
        P itself, as in C: finite, at least 0. 32 images of 56x56 are 32 * 56 * 56 values.
    pseudo_samples : float, optional
        In its place, how many samples (along axis 0): P is as many times the positions of a sample of x, also where
        weights or lengths leave some of them out.

    Raises
    ------
    ValueError, TypeError
        Both are given, or none, or what is given is not such a number. By the call: pseudo_samples, but axis 0 is a
        channel axis.

    Examples
    --------
    A mean of 0 that counts as four values, and two values of mean 6:

    >>> import numpy as np
    >>> import batchnorm as bn
    >>> x = np.array([[5.0], [7.0]])
    >>> running = {"running_mean": np.zeros(1), "running_var": np.ones(1)}
    >>> y, _ = bn.forward_training(x, **running, momentum=0.0, eps=0.0, source=bn.Blend(pseudo_count=4))
    >>> print(y.ravel())  # x - 2, as the blended variance is 1
    [3. 5.]
    """

    pseudo_count: float | None = None
    pseudo_samples: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("pseudo_count", "pseudo_samples")}
        told = {name: value for name, value in given.items() if value is not None}
        if len(told) != 1:
            raise ValueError(f"{' and '.join(given)} are {'both' if told else 'not'} given, expected one of them")
        ((name, value),) = told.items()
        count = number(value, name)
        if not 0 <= count < math.inf:
            raise ValueError(f"{name} is {count}, expected a finite number of at least 0")

    def __repr__(self) -> str:
        if self.pseudo_samples is None:
            return f"Blend(pseudo_count={self.pseudo_count!r})"
        return f"Blend(pseudo_samples={self.pseudo_samples!r})"

    def _values(self, x: Array, axis: Axis) -> float:
        """The number of values per channel that the running statistics count as beside x."""
        if self.pseudo_samples is None:
            return float(self.pseudo_count or 0)
        axes = channel_axes(as_axis(axis), x.ndim)
        if 0 in axes:
            raise ValueError(
                "source is a Blend with pseudo_samples, which are along axis 0, but that is a channel axis: "
                "say pseudo_count"
            )
        positions: int = math.prod(x.shape[a] for a in range(1, x.ndim) if a not in axes)
        return float(self.pseudo_samples) * positions


@publish
@dataclass(frozen=True)
class Renorm(Versioned):
    """Batch renormalization: x_hat * r + d, with r and d from the running statistics (arXiv:1702.03275).

    ::

        y = gamma * (x_hat * r + d) + beta        std = sqrt(var + eps)
        r = std / running_std                     clipped to r_min and r_max
        d = (mean - running_mean) / running_std   clipped to -d_max and d_max

    r and d are constants to the gradient. renorm_limits() has the paper's schedule.

    Parameters
    ----------
    r_max : float, default infinity
        At least 1.
    d_max : float, default infinity
        At least 0.
    r_min : float, default 1 / r_max
        From 0 to 1. The default is the paper's: with r_max 1 and d_max 0 the batch is normalized as usual. Keras has 0.

    Raises
    ------
    ValueError, TypeError
        A limit is no number, or out of its range. By a call: there are no running statistics.
    """

    r_max: float = math.inf
    d_max: float = math.inf
    r_min: float | None = None

    def __post_init__(self) -> None:
        r_max, d_max = (number(getattr(self, name), name) for name in ("r_max", "d_max"))
        if not r_max >= 1:
            raise ValueError(f"r_max is {r_max}, expected at least 1")
        r_min = number(self.least_r, "r_min")
        if not d_max >= 0:
            raise ValueError(f"d_max is {d_max}, expected at least 0")
        if not 0 <= r_min <= 1:
            raise ValueError(f"r_min is {r_min}, expected a number from 0 to 1")

    @property
    def least_r(self) -> float:
        """r_min, or 1 / r_max if it is None."""
        return 1 / self.r_max if self.r_min is None else self.r_min


@publish
@dataclass(frozen=True)
class Updated(Versioned):
    """The running statistics after the call's own update, as in equinox's mode "ema".

    The batch is a part of them, also to the gradient. Each of several ghost batches has those that it alone would give.
    A call without running statistics is a ValueError.
    """


Source = Union[Blend, Renorm, Updated]


def renorm_limits(step: float) -> tuple[float, float]:
    """r_max and d_max at a training step, as in section 3 of the paper on batch renormalization (arXiv:1702.03275).

    r_max is 1 until step 5,000 and then grows to 3 at 40,000; d_max is 0 until 5,000 and then grows to 5 at 25,000.

    Parameters
    ----------
    step : float
        The number of training steps so far.

    Returns
    -------
    r_max, d_max : float
        For Renorm(r_max, d_max).

    Raises
    ------
    ValueError, TypeError
        The step is NaN, or no number.

    Examples
    --------
    >>> import batchnorm as bn
    >>> bn.renorm_limits(25_000)
    (2.142857142857143, 5.0)
    """
    step = number(step, "step")
    if math.isnan(step):
        raise ValueError("step is nan, expected a number")
    r_max = 1 + 2 * min(max((step - 5_000) / 35_000, 0.0), 1.0)
    d_max = 5 * min(max((step - 5_000) / 20_000, 0.0), 1.0)
    return r_max, d_max


def struct_of(source: Source, saved: Doubles, x: Array, axis: Axis) -> structs.Source:
    """A source as the library takes it; `saved` is what the forward call writes and the backward call reads."""
    kinds = structs.SourceKind
    pseudo_count, r_min, r_max, d_max = 0.0, 0.0, math.inf, math.inf
    if isinstance(source, Blend):
        kind = kinds.BLEND
        pseudo_count = source._values(x, axis)
    elif isinstance(source, Renorm):
        kind = kinds.RENORM
        r_min, r_max, d_max = float(source.least_r), float(source.r_max), float(source.d_max)
    elif isinstance(source, Updated):
        kind = kinds.UPDATED
    else:
        raise TypeError(f"source is of type {type(source).__name__}, expected Blend, Renorm or Updated")
    struct: structs.Source = sized(structs.Source(0, kind, 0, pseudo_count, r_min, r_max, d_max, address(saved)))
    return struct


def scratch(rows: int, channels: int) -> Doubles:
    """Memory for what the library saves of a source: four numbers for each mean."""
    return np.zeros((4, rows, channels))
