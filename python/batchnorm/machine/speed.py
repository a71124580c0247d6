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
        How long it goes on, but for a few rounds that it makes at least.

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
    """The calls that are timed: name, who does it, the call, and how many tensors it reads and writes."""
    channels = x.shape[1]
    spread = (1, channels, *[1] * (x.ndim - 2))
    others = (0, *range(2, x.ndim))
    wide = np.promote_types(x.dtype, np.float32)  # float16 has no sum of its own
    gamma, beta = np.full(channels, 1.5, wide), np.full(channels, 0.5, wide)
    mean, var = np.zeros(channels, wide), np.ones(channels, wide)
    y, dx = np.empty_like(x), np.empty_like(x)
    saved = bn.forward_training(x, gamma, beta, eps=EPS, running_mean=mean, running_var=var)[1]
    g, b = gamma.reshape(spread), beta.reshape(spread)

    def statistics() -> tuple[Array, Array]:
        centre = x.mean(others, dtype=wide, keepdims=True)
        return centre, 1 / np.sqrt(x.var(others, dtype=wide, keepdims=True) + EPS)

    centre, scale = statistics()

    def forward() -> object:
        centre, scale = statistics()
        return ((x - centre) * (g * scale) + b).astype(x.dtype, copy=False)

    def backward() -> object:
        x_hat = (x - centre) * scale
        of_gamma = (dy * x_hat).mean(others, dtype=wide, keepdims=True)
        of_beta = dy.mean(others, dtype=wide, keepdims=True)
        return ((g * scale) * (dy - of_beta - x_hat * of_gamma)).astype(x.dtype, copy=False)

    def inference() -> object:
        factor = gamma / np.sqrt(var + EPS)
        return (x * factor.reshape(spread) + (beta - mean * factor).reshape(spread)).astype(x.dtype, copy=False)

    def library_forward() -> object:
        return bn.forward_training(x, gamma, beta, eps=EPS, running_mean=mean, running_var=var, out=y)

    def library_inference() -> object:
        return bn.forward_inference(x, gamma, beta, eps=EPS, running_mean=mean, running_var=var, out=y)

    return [
        ("copy", "NumPy", lambda: np.copyto(y, x), 2),
        ("forward", "batchnorm", library_forward, 2),
        ("forward", "NumPy", forward, 2),
        ("backward", "batchnorm", lambda: bn.backward(dy, x, saved, gamma=gamma, out=dx), 3),
        ("backward", "NumPy", backward, 3),
        ("inference", "batchnorm", library_inference, 2),
        ("inference", "NumPy", inference, 2),
    ]
