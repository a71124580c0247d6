# SPDX-License-Identifier: Apache-2.0
"""The speed of the library beside a copy and beside NumPy, in turns, so that all of them meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import batchnorm as bn

Array = NDArray[Any]

EPS = 1e-5
# A median of fewer timed rounds says little.
LEAST_ROUNDS = 5


class Speed(NamedTuple):
    """The median time of one call, and the bytes that it has to move at least: tensors read and written once."""

    what: str
    by: str
    seconds: float
    bytes_moved: int

    @property
    def gigabytes_per_second(self) -> float:
        """10^9 bytes."""
        return self.bytes_moved / self.seconds / 1e9


def measure(shape: tuple[int, ...], dtype: np.dtype[Any], seconds: float = 10.0) -> tuple[list[Speed], int]:
    """Forward, backward and inference by the library and by NumPy, and a copy, in turns; medians.

    Parameters
    ----------
    shape : tuple of int
        (N, C, ...), channels at axis 1.
    dtype : numpy.dtype
    seconds : float, default 10
        The time that it takes; a few rounds are made in any case.

    Returns
    -------
    list of Speed, int
        And the number of rounds.
    """
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, dtype=np.float32).astype(dtype) for _ in range(2))
    calls = _calls(x, dy)
    times: list[list[float]] = [[] for _ in calls]
    for _, _, call, _ in calls:
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < LEAST_ROUNDS or time.perf_counter() < end:
        for each, (_, _, call, _) in zip(times, calls):
            begin = time.perf_counter()
            call()
            each.append(time.perf_counter() - begin)
    speeds = [Speed(what, by, median(each), passes * x.nbytes) for each, (what, by, _, passes) in zip(times, calls)]
    return speeds, len(times[0])


def _calls(x: Array, dy: Array) -> list[tuple[str, str, Callable[[], object], int]]:
    """The calls that are timed: name, library, the call, and the number of tensors that it reads and writes."""
    channels = x.shape[1]
    wide = np.promote_types(x.dtype, np.float32)  # float16 has no sum of its own
    gamma, beta = np.full(channels, 1.5, wide), np.full(channels, 0.5, wide)
    running: dict[str, Any] = {"running_mean": np.zeros(channels, wide), "running_var": np.ones(channels, wide)}
    y, dx = np.empty_like(x), np.empty_like(x)
    _, saved = bn.forward_training(x, gamma, beta, eps=EPS, **running)

    def forward() -> object:
        return bn.forward_training(x, gamma, beta, eps=EPS, out=y, **running)

    def inference() -> object:
        return bn.forward_inference(x, gamma, beta, eps=EPS, out=y, **running)

    by_numpy = _Formulas(x, dy, gamma, beta, *running.values())
    return [
        ("copy", "NumPy", lambda: np.copyto(y, x), 2),
        ("forward", "batchnorm", forward, 2),
        ("forward", "NumPy", by_numpy.forward, 2),
        ("backward", "batchnorm", lambda: bn.backward(dy, x, saved, gamma=gamma, out=dx), 3),
        ("backward", "NumPy", by_numpy.backward, 3),
        ("inference", "batchnorm", inference, 2),
        ("inference", "NumPy", by_numpy.inference, 2),
    ]


class _Formulas:
    """The same calls as somebody writes them in NumPy."""

    def __init__(self, x: Array, dy: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> None:
        self.x, self.dy, self.wide = x, dy, gamma.dtype
        self.others = (0, *range(2, x.ndim))
        spread = (1, x.shape[1], *[1] * (x.ndim - 2))
        self.gamma, self.beta, self.mean, self.var = (each.reshape(spread) for each in (gamma, beta, mean, var))
        self.centre, self.scale = self.statistics()

    def statistics(self) -> tuple[Array, Array]:
        centre = self.x.mean(self.others, dtype=self.wide, keepdims=True)
        return centre, 1 / np.sqrt(self.x.var(self.others, dtype=self.wide, keepdims=True) + EPS)

    def forward(self) -> object:
        centre, scale = self.statistics()
        return ((self.x - centre) * (self.gamma * scale) + self.beta).astype(self.x.dtype, copy=False)

    def backward(self) -> object:
        x_hat = (self.x - self.centre) * self.scale
        of_gamma = (self.dy * x_hat).mean(self.others, dtype=self.wide, keepdims=True)
        of_beta = self.dy.mean(self.others, dtype=self.wide, keepdims=True)
        dx: Array = (self.gamma * self.scale) * (self.dy - of_beta - x_hat * of_gamma)
        return dx.astype(self.x.dtype, copy=False)

    def inference(self) -> object:
        factor = self.gamma / np.sqrt(self.var + EPS)
        return (self.x * factor + (self.beta - self.mean * factor)).astype(self.x.dtype, copy=False)
