# SPDX-License-Identifier: Apache-2.0
"""The layer in steps, for a batch that lies in parts: several processes, several micro-batches.

Forward::

    parts = exchange(bn.moments(x))                    # every part's (count, mean, m2)
    count, mean, m2 = bn.merge_moments(parts)
    invstd = bn.inverse_std(count, m2)
    y = bn.normalize(x, mean, invstd, gamma, beta)
    bn.update_running(running_mean, running_var, count, mean, m2)

Backward::

    sums = bn.backward_reduce(dy, x, mean, invstd)     # dbeta and dgamma of this part
    sum_dy, sum_dy_x_hat = exchange_and_add(sums)      # of the whole batch
    dx = bn.backward_apply(dy, x, mean, invstd, count, sum_dy, sum_dy_x_hat, gamma)

Statistics and sums are float64 arrays, one element per channel. The parts need not be of equal size, or have any size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _arrange, _described, _direct
from ._arrays import Array, Doubles, address, as_bfloat16, as_uint16, doubles, parameter
from ._c_api import lib, raise_error
from ._layout import Axis
from ._options import options
from ._public import publish
from ._weights import Counted, Masked, weighted
from .activations import Activation


@publish
class Sums(NamedTuple):
    """sum(dy) and sum(dy * x_hat), per channel."""

    sum_dy: Doubles
    sum_dy_x_hat: Doubles


def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
) -> Array:
    """y = activation(gamma * (x - mean) * invstd + beta + residual), all arguments as in forward_training()."""
    if dtype is not None:
        given = {"x": x, "gamma": gamma, "beta": beta, "out": out, "residual": residual}
        x, gamma, beta, target, residual = (as_bfloat16(value, name, dtype) for name, value in given.items())
    else:
        target = out
    counted = Counted(weights, lengths, masked)
    if activation is not None or residual is not None or counted:
        y = _described.normalize(x, mean, invstd, gamma, beta, axis, target, activation, residual, counted)
        return _result(y, out, dtype)
    fit, x, y, x_address, y_address = _direct.forward(x, axis, target)
    mean = doubles(mean, "mean", fit.channel_shape)
    invstd = doubles(invstd, "invstd", fit.channel_shape)
    fit = fit.beside(gamma, beta)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    beta, beta_address = parameter(beta, "beta", fit)
    status = lib.bn_normalize(
        fit.shape,
        fit.code,
        x_address,
        gamma_address,
        beta_address,
        address(mean),
        address(invstd),
        y_address,
        options(param_code=fit.param_code),
    )
    if status:
        raise_error(status)
    return _result(y, out, dtype)


def backward_reduce(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    *,
    axis: Axis = 1,
    dtype: DTypeLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
) -> Sums:
    """sum(dy) and sum(dy * x_hat) of this part of the batch: its dbeta and dgamma, not yet rounded to the dtype.

    `weights`, `lengths` and `masked` as in forward_training(): dy counts alike wherever y depends on it, which with
    "zero" and "keep" is where the weight is above 0.
    """
    if dtype is not None:
        dy, x = as_bfloat16(dy, "dy", dtype), as_bfloat16(x, "x", dtype)
    fit, dy, x, dy_address, x_address = _arrange.two(dy, x, axis)
    shape = weighted(fit.shape, Counted(weights, lengths, masked), x, axis)
    mean = doubles(mean, "mean", fit.channel_shape)
    invstd = doubles(invstd, "invstd", fit.channel_shape)
    result = Sums(*np.empty((2, *fit.channel_shape)))
    status = lib.bn_backward_reduce(
        shape, fit.code, dy_address, x_address, address(mean), address(invstd), *map(address, result)
    )
    if status:
        raise_error(status)
    return result


def backward_apply(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    count: ArrayLike,
    sum_dy: ArrayLike,
    sum_dy_x_hat: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
) -> Array:
    """dx = gamma * invstd * (dy - w * sum_dy / count - w * x_hat * sum_dy_x_hat / count), x_hat = (x - mean) * invstd.

    `count` and the sums are those of the whole batch, of which `dy` and `x` may be a part. The weights w are 1 unless
    given, as are `lengths` and `masked`, as in forward_training().
    """
    target = out
    if dtype is not None:
        given = {"dy": dy, "x": x, "gamma": gamma, "out": out}
        dy, x, gamma, target = (as_bfloat16(value, name, dtype) for name, value in given.items())
    fit, dy, x, dx, dy_address, x_address, dx_address = _direct.backward(dy, x, axis, target)
    shape = weighted(fit.shape, Counted(weights, lengths, masked), x, axis)
    statistics = [
        doubles(value, name, fit.channel_shape)
        for name, value in {
            "mean": mean,
            "invstd": invstd,
            "count": count,
            "sum_dy": sum_dy,
            "sum_dy_x_hat": sum_dy_x_hat,
        }.items()
    ]
    fit = fit.beside(gamma)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    chosen = options(param_code=fit.param_code)
    status = lib.bn_backward_apply(
        shape, fit.code, dy_address, x_address, gamma_address, *map(address, statistics), dx_address, chosen
    )
    if status:
        raise_error(status)
    return _result(dx, out, dtype)


def _result(tensor: Array, out: Array | None, dtype: DTypeLike | None) -> Array:
    """What the caller gave to be written, or the tensor, which is bits if `dtype` said so of the others."""
    if out is not None:
        return out
    return tensor if dtype is None else as_uint16(tensor)
