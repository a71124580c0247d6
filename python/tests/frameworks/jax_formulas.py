# SPDX-License-Identifier: Apache-2.0
"""Batch normalization by its formula: in NumPy's longest floats, and in operations that JAX differentiates."""

from __future__ import annotations

from typing import Any

import numpy as np
from in_jax import jax, jnp

Array = np.ndarray[Any, Any]
DTYPES = "float32", "float64", "float16", "bfloat16"


def along(channels: Any, x: Any, axis: int) -> Any:
    """An array of channels, as it is broadcast over x."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return channels.reshape(shape)


def others(x: Any, axis: int) -> tuple[int, ...]:
    return tuple(each for each in range(x.ndim) if each != axis % x.ndim)


def exact(x: Any, gamma: Any, beta: Any, axis: int, eps: float = 1e-5) -> tuple[Array, Array, Array, Array]:
    """y, mean and variance, and the size of what y is the sum of."""
    x, gamma, beta = (np.asarray(each).astype(np.longdouble) for each in (x, gamma, beta))
    mean, var = x.mean(others(x, axis)), x.var(others(x, axis))
    scaled = (x - along(mean, x, axis)) * along(gamma / np.sqrt(var + eps), x, axis)
    return scaled + along(beta, x, axis), mean, var, abs(scaled) + abs(along(beta, x, axis))


def formula(x: Any, gamma: Any, beta: Any, axis: int = -1, eps: float = 1e-5) -> Any:
    """y, mean and variance in the operations of JAX."""
    mean, var = x.mean(others(x, axis)), x.var(others(x, axis))
    scaled = (x - along(mean, x, axis)) * along(gamma * jax.lax.rsqrt(var + eps), x, axis)
    return scaled + along(beta, x, axis), mean, var


def batch(rng: np.random.Generator, shape: tuple[int, ...], axis: int = -1, dtype: Any = "float64") -> list[Any]:
    """x, gamma and beta."""
    parameter = "float64" if dtype == "float64" else "float32"
    channels = shape[axis]
    x = rng.normal(1, 2, shape)
    return [
        jnp.asarray(x, dtype),
        jnp.asarray(rng.uniform(-2, 2, channels), parameter),
        jnp.asarray(rng.normal(size=channels), parameter),
    ]


def near(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    """The leaves of two trees agree, up to a part of their largest numbers."""
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(found) == len(wanted) > 0
    for mine, theirs in zip(found, wanted):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert mine.shape == theirs.shape
        assert abs(mine - theirs).max(initial=0) <= tolerance * abs(theirs).max(initial=1)


def same(found: Any, wanted: Any) -> None:
    """The same bits."""
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(found) == len(wanted) > 0
    for mine, theirs in zip(found, wanted):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert mine.tobytes() == theirs.tobytes()
