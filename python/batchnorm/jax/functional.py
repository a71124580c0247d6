# SPDX-License-Identifier: Apache-2.0
"""batch_norm() for arrays of JAX, with derivatives, and normalization by running statistics."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .calling import Call, parameter_dtype
from .derivatives import forward
from .inference import normalized

_DTYPES = "float32", "float64", "float16", "bfloat16"


class BatchStatistics(NamedTuple):
    """Mean and biased variance of a batch, of shape (C,): float64 beside an x of float64, else float32."""

    mean: Array
    var: Array


def batch_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    axis: int = -1,
    eps: float = 1e-5,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
    *,
    reproducible: bool = False,
) -> tuple[Array, BatchStatistics]:
    """Normalizes x with the mean and the biased variance of its own batch.

    Parameters
    ----------
    x : Array of shape (..., C, ...)
        Of float32, float64, float16 or bfloat16.
    gamma, beta : Array of shape (C,), optional
        Scale and shift. They may be of a narrower dtype than float32, and of float64 beside an x of float64.
    axis : int, default -1
        That of the channels.
    eps : float, default 1e-5
        Added to the variance: finite, at least 0.
    axis_name : str or tuple of str, optional
        Axes of `jax.shard_map`, `jax.pmap` or `jax.vmap` over which the batch is spread: the statistics are those of
        all of it. gamma and beta have to be the same on all of these devices. Their gradients are those of the part of
        the batch that is on the device, to be summed up; `jax.shard_map` does so where they are replicated.
    reproducible : bool, default False
        With axis_name: the same bits for any number of devices, if each has whole samples. Moments are then gathered of
        each sample (index of the first axis), and not of each device.

    Returns
    -------
    y : Array
        Of x's shape and dtype.
    statistics : BatchStatistics
        mean and var, for running statistics.

    Raises
    ------
    TypeError
        x, gamma or beta has another dtype.
    ValueError
        A shape, axis or eps is not as above; or there is one value per channel, which has no variance.
    """
    x = _tensor(x)
    axis = _axis(axis, x)
    gamma, beta = (_parameter(value, name, x, axis) for value, name in ((gamma, "gamma"), (beta, "beta")))
    over = () if axis_name is None else axis_name if isinstance(axis_name, tuple) else (axis_name,)
    devices = _devices(over)
    parts = x.shape[0] if over and reproducible and axis and x.shape[0] else 1
    call = Call(axis, x.ndim, _eps(eps), over=over, devices=devices, parts=parts)
    if call.values(x) == 1:
        raise ValueError(f"x has shape {x.shape}: one value per channel has no variance to normalize with")
    for value, name in ((gamma, "gamma"), (beta, "beta")):
        if jax.typeof(value).mat.varying & set(over):
            raise ValueError(
                f"{name} varies over {axis_name!r}; expected the same on every device, as axis_name has one batch"
            )
    y, _, mean, var = forward(x, gamma, beta, call)
    return y, BatchStatistics(mean, var)


def batch_norm_inference(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    mean: Array,
    var: Array,
    axis: int = -1,
    eps: float = 1e-5,
) -> Array:
    """Normalizes x with running statistics, which are constants of the batch.

    Parameters
    ----------
    x, gamma, beta, axis, eps
        As of batch_norm().
    mean, var : Array of shape (C,)
        Of a dtype that gamma may have.

    Returns
    -------
    Array
        Of x's shape and dtype. All derivatives are known, those by mean and var included.
    """
    x = _tensor(x)
    axis = _axis(axis, x)
    named = (gamma, "gamma"), (beta, "beta"), (mean, "mean"), (var, "var")
    given = [_parameter(value, name, x, axis) for value, name in named]
    return normalized(x, *given, axis, _eps(eps))


def _tensor(x: Any) -> Array:
    x = jnp.asarray(x)
    if x.dtype.name not in _DTYPES:
        raise TypeError(f"x has dtype {x.dtype}, expected {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}")
    if not x.ndim:
        raise ValueError("x has shape (), expected an axis of channels")
    return x


def _axis(axis: Any, x: Array) -> int:
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis is {axis!r}, expected an integer")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}, but x has shape {x.shape}; expected {-x.ndim} to {x.ndim - 1}")
    if not x.shape[axis]:
        raise ValueError(f"x has shape {x.shape}: axis {axis} has no channels")
    return int(axis) % x.ndim


def _parameter(value: Any, name: str, x: Array, axis: int) -> Array:
    """One number per channel, as the library reads them beside x."""
    channels, dtype = x.shape[axis], parameter_dtype(x)
    if value is None:
        return jnp.full(channels, name in ("gamma", "var"), dtype)
    value = jnp.asarray(value)
    if value.dtype.name not in _DTYPES or value.dtype.itemsize > dtype.itemsize:
        wider = "" if dtype == np.float64 else f"; x has dtype {x.dtype}"
        raise TypeError(f"{name} has dtype {value.dtype}, expected a floating-point one up to {dtype}{wider}")
    if value.shape != (channels,):
        raise ValueError(
            f"{name} has shape {value.shape}, expected {(channels,)}: x has {channels} channels along axis {axis}"
        )
    return value.astype(dtype)


def _devices(over: tuple[Hashable, ...]) -> int:
    try:
        return int(jax.lax.axis_size(over)) if over else 1
    except NameError:
        raise ValueError(
            f"axis_name is {over if len(over) > 1 else over[0]!r}, expected an axis of jax.shard_map, jax.pmap or "
            "jax.vmap, within which this is called"
        ) from None


def _eps(eps: Any) -> float:
    eps = float(eps)
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is {eps}, expected a finite number, at least 0")
    return eps
