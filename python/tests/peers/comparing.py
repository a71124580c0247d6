# SPDX-License-Identifier: Apache-2.0
"""Random batches, what rounding errors are proportional to, and how near two systems have to be.

The library's own results are within a few units of the last place of the real numbers (test_numerics.py), so that the
distance between two systems is the peer's error: one rounding of its output, the roundings of what it computes with,
and those of its sums. Where a peer's sums of M numbers are plain, their error is a random walk of M roundings: sqrt(M)
units of the sum of what is added up.
"""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

Array = np.ndarray[Any, Any]

DTYPES: dict[str, Any] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
HALVES = ["float16", "bfloat16"]
CASES = range(12)


def peer(name: str) -> Any:
    """A module of a peer; without it, or if it cannot be loaded, the file's tests are skipped in its name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        return pytest.skip(f"{name} is absent: {str(error).splitlines()[0]}", allow_module_level=True)


class Batch:
    """x and dy of random rank and shape, and the arrays of a layer for it; printed, so that a failure tells them.

    `axis` is "first" (1), "last" or "any" (but 0). The channels' means are within three standard deviations of 0: what
    is lost in E[x²] - E[x]², as some peers have it, is then a digit.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        dtype: str,
        axis: str = "first",
        ranks: tuple[int, ...] = (2, 3, 4, 5),
        param: str | None = None,
        channels: int | None = None,
    ) -> None:
        rank = int(rng.choice(ranks))
        self.axis = {"first": 1, "last": rank - 1, "any": int(rng.integers(1, rank))}[axis]
        # A plane that fills vectors and does not, or a few values; few channels and many.
        most = {2: 90, 3: 40, 4: 12, 5: 5}[rank]
        shape = [int(rng.integers(1, most + 1)) for _ in range(rank)]
        shape[0] = int(rng.integers(4, 90 if rank == 2 else 14))
        shape[self.axis] = int(rng.integers(1, 20)) if channels is None else channels
        self.shape = tuple(shape)
        self.channels = c = shape[self.axis]
        self.count = math.prod(shape) // c
        self.dtype = DTYPES[dtype]
        narrow = self.dtype.itemsize == 2
        self.param = DTYPES[param or ("float32" if narrow else dtype)]
        self.eps = float(rng.choice([1e-5, 1e-3, 1e-2]))
        self.momentum = round(float(rng.uniform(0.01, 0.9)), 2)
        std = self.spread(np.exp(rng.uniform(-1.5, 1.5, c)))
        mean = std * self.spread(rng.uniform(-3, 3, c))
        self.x = (std * rng.normal(size=shape) + mean).astype(self.dtype)
        self.dy = rng.normal(size=shape).astype(self.dtype)
        sign = rng.choice([-1, 1], c)
        self.gamma = (sign * rng.uniform(0.3, 2, c)).astype(self.param)
        self.beta = rng.normal(size=c).astype(self.param)
        self.running_mean = rng.normal(size=c).astype(self.param)
        self.running_var = rng.uniform(0.3, 4, c).astype(self.param)
        told = f"x {self.shape} {self.dtype}, axis {self.axis}, parameters {self.param}"
        print(f"{told}, eps {self.eps}, momentum {self.momentum}")

    @property
    def count_beside_float64(self) -> int:
        """The number of roundings in sums that are computed in float64: they matter for tensors of float64 alone."""
        return self.count if self.dtype == np.float64 else 1

    @property
    def over(self) -> tuple[int, ...]:
        """The axes that statistics are taken over."""
        return tuple(a for a in range(len(self.shape)) if a != self.axis)

    def spread(self, values: Any) -> Array:
        """One value per channel, shaped to go with x."""
        shape = [1] * len(self.shape)
        shape[self.axis] = self.channels
        return np.asarray(values).reshape(shape)

    def arrays(self) -> dict[str, Any]:
        """Copies of gamma, beta and the running statistics, which forward_training() updates."""
        return {name: getattr(self, name).copy() for name in ("gamma", "beta", "running_mean", "running_var")}

    def sizes(self, frozen: bool = False, squares: bool = False, mask: Any = True) -> Sizes:
        return Sizes(self, frozen, squares, mask)


class Sizes:
    """The sizes, per channel, to which the errors of a peer's results are proportional.

    With `squares` a variance is E[x²] - E[x]², so that its relative error is larger by E[x²] / var. With a mask only
    what it has counts in statistics.
    """

    def __init__(self, batch: Batch, frozen: bool, squares: bool, mask: Any) -> None:
        x, dy = batch.x.astype(float), abs(batch.dy.astype(float))
        gamma, beta = abs(batch.spread(batch.gamma.astype(float))), abs(batch.spread(batch.beta.astype(float)))
        mean, var, square = (
            function(values, batch.over, keepdims=True, where=mask)
            for function, values in ((np.mean, x), (np.var, x), (np.mean, x**2))
        )
        if frozen:
            mean, var = (batch.spread(a.astype(float)) for a in (batch.running_mean, batch.running_var))
        most = abs(x).max(batch.over, keepdims=True) + abs(mean)
        invstd = 1 / np.sqrt(var + batch.eps)
        worse = 1 + (square * invstd**2 if squares else 0)
        # x_hat is a difference of two terms of this size, whether (x - mean) * invstd or x * invstd - mean * invstd.
        hat = most * invstd * worse
        self.mean = most.ravel()
        self.var = (most**2).ravel()
        self.y = gamma * hat + beta
        self.term = gamma * invstd * dy.max(batch.over, keepdims=True)
        self.dx = self.term * (1 + hat) ** 2
        self.dgamma = (dy.sum(batch.over, keepdims=True) * hat).ravel()
        self.dbeta = dy.sum(batch.over)


def near(ours: Any, theirs: Any, computed: Any, size: Any, count: int = 1, times: float = 8) -> None:
    """Asserts that two results differ by no more than roundings.

    One of each result to its dtype; `times` roundings to the dtype that was `computed` with, of terms of this size; and
    four standard deviations of a walk of `count` such roundings.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    kind = min((ours.dtype, theirs.dtype), key=lambda dtype: dtype.itemsize)
    rounding, least = float(ml_dtypes.finfo(kind).eps), float(ml_dtypes.finfo(kind).smallest_subnormal)
    unit = float(ml_dtypes.finfo(computed).eps)
    ours, theirs = ours.astype(float), theirs.astype(float)
    bound = 1.01 * rounding * abs(theirs) + (times + 4 * math.sqrt(count)) * unit * size + least
    ratio = abs(ours - theirs) / bound
    worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape) if ratio.size else ()
    if ratio.size:
        assert (ratio <= 1).all(), f"{ours[worst]} is not near {theirs[worst]} at {worst}: {ratio[worst]:.3g} bounds"


def wide(dtype: Any) -> Any:
    """The dtype in which a peer computes for tensors of this dtype."""
    return np.dtype(np.float32) if np.dtype(dtype).itemsize == 2 else np.dtype(dtype)
