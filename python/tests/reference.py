# SPDX-License-Identifier: Apache-2.0
"""The oracle: batch normalization as the formulas have it, in NumPy's longest floats, apart from the library.

With the 64-bit mantissa of x86 its own errors, some M * 2**-64, are far below what the tests look at. Every function
takes the channel axes as a tuple and gives statistics in their shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Real = np.longdouble
Array = np.ndarray[Any, Any]


def others(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a for a in range(x.ndim) if a not in [axis % x.ndim for axis in axes])


def spread(statistic: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """One value per channel, shaped to go with x."""
    kept = [axis % x.ndim for axis in axes]
    shape = [x.shape[a] if a in kept else 1 for a in range(x.ndim)]
    return np.asarray(statistic, Real).reshape(shape)


def statistics(x: Array, axes: tuple[int, ...]) -> tuple[int, Array, Array]:
    """M, mean and the sum of squared deviations."""
    x = x.astype(Real)
    count = int(np.prod([x.shape[a] for a in others(x, axes)]))
    mean = x.sum(axis=others(x, axes)) / count
    m2 = ((x - spread(mean, x, axes)) ** 2).sum(axis=others(x, axes))
    return count, mean, m2


def inverse_std(var: Any, eps: float) -> Array:
    return 1 / np.sqrt(np.asarray(var, Real) + Real(eps))


def x_hat(x: Array, mean: Any, invstd: Any, axes: tuple[int, ...]) -> Array:
    return (x.astype(Real) - spread(mean, x, axes)) * spread(invstd, x, axes)


def forward(x: Array, gamma: Any, beta: Any, mean: Any, invstd: Any, axes: tuple[int, ...]) -> Array:
    return spread(gamma, x, axes) * x_hat(x, mean, invstd, axes) + spread(beta, x, axes)


def forward_training(x: Array, gamma: Any, beta: Any, eps: float, axes: tuple[int, ...] = (1,)) -> tuple[Array, ...]:
    """y, mean and invstd."""
    count, mean, m2 = statistics(x, axes)
    invstd = inverse_std(m2 / count, eps)
    return forward(x, gamma, beta, mean, invstd, axes), mean, invstd


def running(old: Any, new: Any, momentum: float) -> Array:
    return (1 - Real(momentum)) * np.asarray(old, Real) + Real(momentum) * np.asarray(new, Real)


def backward(
    dy: Array, x: Array, mean: Any, invstd: Any, gamma: Any, axes: tuple[int, ...] = (1,), frozen: bool = False
) -> tuple[Array, Array, Array]:
    """dx, dgamma and dbeta."""
    dy, normalized = dy.astype(Real), x_hat(x, mean, invstd, axes)
    dbeta = dy.sum(axis=others(x, axes))
    dgamma = (dy * normalized).sum(axis=others(x, axes))
    scale = spread(gamma, x, axes) * spread(invstd, x, axes)
    if frozen:
        return scale * dy, dgamma, dbeta
    count = x.size / dbeta.size
    return scale * (dy - spread(dbeta, x, axes) / count - normalized * spread(dgamma, x, axes) / count), dgamma, dbeta
