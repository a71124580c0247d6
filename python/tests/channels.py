# SPDX-License-Identifier: Apache-2.0
"""Channels of data that are easily got wrong, alone or beside one another, and tensors made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Values = Callable[[np.random.Generator, int, Any], Any]

# Near the ends of what a dtype holds, as far as batchnorm.h promises something there.
HUGE = {np.dtype("f2"): 1e3, np.dtype("f4"): 1e37, np.dtype("f8"): 1e149}
TINY = {np.dtype("f2"): 1e-6, np.dtype("f4"): 1e-40, np.dtype("f8"): 1e-150}


def _far(ratio: float) -> Values:
    """abs(mean) / std is `ratio`; another sign and magnitude for each."""
    return lambda rng, n, _: (-1) ** round(ratio) * 3 * (rng.normal(size=n) + ratio)


def _steps(a: float, b: float) -> Values:
    return lambda _, n, __: np.where(np.arange(n) < n // 2, a, b)


def _ramp(a: float, b: float) -> Values:
    return lambda _, n, __: np.linspace(a, b, n)


def _but(values: Values, first: Any = None, middle: Any = None, last: Any = None) -> Values:
    """Other values in the places that are looked at before a channel is summed."""

    def changed(rng: np.random.Generator, n: int, dtype: Any) -> Any:
        result = np.array(values(rng, n, dtype))
        for place, value in ((0, first), (n // 2, middle), (n - 1, last)):
            if value is not None:
                result[place] = value
        return result

    return changed


def _all(value: float) -> Values:
    return lambda _, n, __: np.full(n, value)


def _normal(mean: float, std: float) -> Values:
    return lambda rng, n, _: mean + std * rng.normal(size=n)


CONSTANT: dict[str, Values] = {
    "constant 0": _all(0),
    "constant 0.1": _all(0.1),
    "constant -3.7": _all(-3.7),
    "constant 16777215": _all(16777215),
    "constant -1e-30": _all(-1e-30),
    "constant 1e-43": _all(1e-43),
    "constant 3e38": _all(3e38),
}
VARIED: dict[str, Values] = {
    **{f"mean {ratio:g}": _far(ratio) for ratio in (0, 1, 62, 63, 65, 1e2, 1e4, 1e6)},
    "ramp": _ramp(-1, 3),
    "ramp far from 0": _ramp(1000, 1001),
    "steps": _steps(3.3, 5.1),
    "steps about 0": _steps(-2.7, 2.7),
    "steps at 63": _steps(62.1, 64.3),
    "steps far from 0": _steps(1000.3, 1000.1),
    "steps of an ulp": lambda _, n, dtype: np.where(np.arange(n) < n // 2, 5, 5 + np.spacing(dtype.type(5))),
    "outlier first": _but(_normal(100, 1), first=1e6),
    "outlier in the middle": _but(_normal(100, 1), middle=1e6),
    "outlier last": _but(_normal(100, 1), last=1e6),
    "an ulp off": lambda _, n, dtype: np.where(np.arange(n) == n // 3, 5 + np.spacing(dtype.type(5)), 5),
    # The three values that are looked at say that sums about 0 will do, and they will not.
    "three far apart": _but(_normal(1e4, 1e-2), 0.98e4, 1e4, 1.02e4),
    "three far apart, constant else": _but(_all(1000.1), 980, 1001, 1017),
    "three wild ones": _but(_normal(-1e4, 1e-1), -1.4e4, 0.2e4, -0.9e4),
    # The three values that are looked at are nothing like the rest: their median is an outlier.
    "median 0": _but(_normal(100, 1), 0, 0),
    "median 0, constant else": _but(_all(1443.7), 0, 0),
    "median -0, one of each sign": _but(_normal(100, 1), -5, -0.0, 5),
    "median 1e-30, constant else": _but(_all(1000.1), 1e-30, 1e-30),
    "three alike, constant else": _but(_all(1000.1), 1, 1, 1),
    "two outliers": _but(_normal(0, 1), 1e9, 1e9),
    # eps, if there is one, is all of the variance.
    "below eps": _normal(0.1, 1e-6),
    "ulps below eps": lambda rng, n, _: 0.1 + 1e-8 * rng.integers(0, 3, n),
    # Coefficients beyond float32, and what is subtracted near the ends.
    "huge": lambda rng, n, dtype: HUGE[dtype] * rng.normal(size=n),
    "huge mean": lambda rng, n, dtype: HUGE[dtype] * rng.uniform(26, 33, n),
    "widest": lambda rng, n, dtype: HUGE[dtype] * rng.uniform(-16, 16, n),
    "widest steps": lambda _, n, dtype: HUGE[dtype] * np.where(np.arange(n) < n // 2, -30, 30),
    "one beyond reach": lambda rng, n, dtype: HUGE[dtype] * np.where(np.arange(n) == 0, -30, rng.uniform(10, 12, n)),
    "tiny": lambda rng, n, dtype: TINY[dtype] * rng.normal(size=n),
    "tiny with a mean": lambda rng, n, dtype: TINY[dtype] * (100 + rng.normal(size=n)),
    "border of float32": _normal(0, 1e-38),
    "least of float32": lambda rng, n, _: 2.0**-149 * rng.integers(-9, 20, n),
}
CHANNELS = {**VARIED, **CONSTANT}
# Some of them, for tensors of few channels: another kind of trouble with each channel more.
FEW = ["three far apart", "tiny", "mean 1e+06", "mean 1", "median 0, constant else", "constant 3e38", "steps"]


def draw(rng: np.random.Generator, names: Sequence[str], n: int, dtype: Any) -> Array:
    """A row of n values for each name, as far as the dtype reaches."""
    most = float(np.finfo(dtype).max)
    rows = [np.asarray(CHANNELS[name](rng, n, np.dtype(dtype))) for name in names]
    return np.stack([np.clip(row, -most, most).astype(dtype) for row in rows])


def draw_gradient(rng: np.random.Generator, x: Array, mean: float) -> Array:
    """Something for dy beside such rows: so small where x is tiny that dx can be held."""
    std = x.astype(np.longdouble).std(axis=1, keepdims=True)
    return ((rng.normal(size=x.shape) + mean) * np.where(std == 0, 1, np.minimum(1, std))).astype(x.dtype)


def sparse(count: int) -> list[str]:
    """Easy channels, and a hard one now and then: whether a group of channels has one depends on where groups end."""
    hard = list(CHANNELS)[2:]
    return [hard[c // 23 % len(hard)] if c % 23 == 7 else f"mean {c % 2}" for c in range(count)]


def cycled(names: Iterable[str], count: int) -> list[str]:
    return list(islice(cycle(names), count))
