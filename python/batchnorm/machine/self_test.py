# SPDX-License-Identifier: Apache-2.0
"""A self-test of about a second: the library's results here beside formulas in NumPy's float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import batchnorm as bn

Array = NDArray[Any]

EPS = 1e-5
# Channels first, channels last, rows, planes of one row; the last ones go through all threads and caches.
_SHAPES: list[tuple[tuple[int, ...], int]] = [
    ((5, 3, 7, 9), 1),
    ((4, 6, 5, 17), -1),
    ((33, 19), 1),
    ((3, 70, 1), 1),
    ((8, 64, 28, 28), 1),
    ((8, 28, 28, 64), -1),
]
_DTYPES = "float32", "float64", "float16"
# Roundings of the element type that a result may be off by, and roundings of float64 that the formulas may.
_ROUNDINGS, _OF_FORMULAS = 16, 256


class Deviation(NamedTuple):
    """One result beside the formula's: the largest difference, and the largest that rounding explains.

    Examples
    --------
    >>> from batchnorm.machine import Deviation
    >>> Deviation("forward", "y", "float32", (2, 3), 1, 2e-7, 1e-6).is_right
    True
    """

    call: str
    result: str
    dtype: str
    shape: tuple[int, ...]
    axis: int
    difference: float
    allowed: float

    @property
    def is_right(self) -> bool:
        """True if rounding explains the difference; NaN is never right."""
        return self.difference <= self.allowed


def self_test(seed: int = 0) -> Iterator[Deviation]:
    """Compares training, gradients, inference and running statistics with the formulas in NumPy's float64.

    Yields
    ------
    Deviation
        One for each result, on drawn arrays of all layouts in float32, float64 and float16.

    Examples
    --------
    >>> from batchnorm.machine import self_test
    >>> all(each.is_right for each in self_test())
    True
    """
    rng = np.random.default_rng(seed)
    for shape, axis in _SHAPES:
        for dtype in _DTYPES:
            yield from _compare(rng, shape, axis, np.dtype(dtype))


def _compare(rng: np.random.Generator, shape: tuple[int, ...], axis: int, dtype: np.dtype[Any]) -> Iterator[Deviation]:
    parameters = np.promote_types(dtype, np.float32)
    channels = shape[axis]
    spread = [1] * len(shape)
    spread[axis] = channels
    x = rng.normal(rng.normal(size=spread), rng.uniform(0.5, 2, spread), shape).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    gamma, beta = (rng.uniform(0.5, 1.5, channels).astype(parameters) for _ in range(2))
    running_mean, running_var = np.zeros(channels, parameters), np.ones(channels, parameters)
    y, saved = bn.forward_training(
        x, gamma, beta, axis=axis, eps=EPS, momentum=0.25, running_mean=running_mean, running_var=running_var
    )
    dx, dgamma, dbeta = bn.backward(dy, x, saved, gamma=gamma)
    inferred = bn.forward_inference(x, gamma, beta, axis=axis, eps=EPS, running_mean=beta, running_var=gamma)

    true, terms = _formulas(x, dy, gamma, beta, axis)
    results = [
        ("forward", "y", y),
        ("forward", "running_mean", running_mean),
        ("forward", "running_var", running_var),
        ("backward", "dx", dx),
        ("backward", "dgamma", dgamma),
        ("backward", "dbeta", dbeta),
        ("inference", "y", inferred),
    ]
    for call, name, got in results:
        exact = true[call, name]
        scale = float(np.max(np.abs(exact))) + float(np.max(terms[name]))
        difference = float(np.max(np.abs(got.astype(np.float64) - exact)))
        allowed = scale * (_ROUNDINGS * float(np.finfo(got.dtype).eps) + _OF_FORMULAS * 2.0**-52) / 2
        yield Deviation(call, name, str(dtype), shape, axis, difference, allowed)


def _formulas(
    x: Array, dy: Array, gamma: Array, beta: Array, axis: int
) -> tuple[dict[tuple[str, str], Array], dict[str, Array]]:
    """Each result in float64; and the terms that it is made of, to which errors are relative, as they may cancel."""
    others = tuple(each for each in range(x.ndim) if each != axis % x.ndim)
    spread = [1 if each in others else n for each, n in enumerate(x.shape)]
    wide, wide_dy = x.astype(np.float64), dy.astype(np.float64)
    g, b = gamma.astype(np.float64).reshape(spread), beta.astype(np.float64).reshape(spread)
    count = x.size // x.shape[axis]
    mean, var = wide.mean(others, keepdims=True), wide.var(others, keepdims=True)
    x_hat = (wide - mean) / np.sqrt(var + EPS)
    sum_dy, sum_dy_x_hat = wide_dy.sum(others, keepdims=True), (wide_dy * x_hat).sum(others, keepdims=True)
    terms = dict.fromkeys(("y", "running_mean", "running_var"), np.abs(mean))
    terms["dgamma"], terms["dbeta"] = np.abs(wide_dy * x_hat).sum(others), np.abs(wide_dy).sum(others)
    terms["dx"] = np.abs(g / np.sqrt(var + EPS)) * np.abs(wide_dy).max()
    return {
        ("forward", "y"): g * x_hat + b,
        ("forward", "running_mean"): 0.25 * mean.reshape(-1),
        ("forward", "running_var"): 0.75 + 0.25 * var.reshape(-1) * count / (count - 1),
        ("backward", "dx"): g / np.sqrt(var + EPS) * (wide_dy - sum_dy / count - x_hat * sum_dy_x_hat / count),
        ("backward", "dgamma"): sum_dy_x_hat.reshape(-1),
        ("backward", "dbeta"): sum_dy.reshape(-1),
        ("inference", "y"): (wide - b) / np.sqrt(g + EPS) * g + b,
    }, terms
