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
from numpy.typing import ArrayLike

from . import _arrange, _direct
from ._arrays import Array, Doubles, address, doubles, parameter
from ._c_api import lib, raise_error
from ._layout import Axis
from ._options import options


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
) -> Array:
    """y = gamma * (x - mean) * invstd + beta, with `x`, `gamma`, `beta`, `axis` and `out` as in forward_training()."""
    fit, x, y, x_address, y_address = _direct.forward(x, axis, out)
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
    return y


def backward_reduce(dy: ArrayLike, x: ArrayLike, mean: ArrayLike, invstd: ArrayLike, *, axis: Axis = 1) -> Sums:
    """sum(dy) and sum(dy * x_hat) of this part of the batch: its dbeta and dgamma, not yet rounded to the dtype."""
    fit, dy, x, dy_address, x_address = _arrange.two(dy, x, axis)
    mean = doubles(mean, "mean", fit.channel_shape)
    invstd = doubles(invstd, "invstd", fit.channel_shape)
    result = Sums(*np.empty((2, *fit.channel_shape)))
    status = lib.bn_backward_reduce(
        fit.shape, fit.code, dy_address, x_address, address(mean), address(invstd), *map(address, result)
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
) -> Array:
    """dx = gamma * invstd * (dy - sum_dy / count - x_hat * sum_dy_x_hat / count), with x_hat = (x - mean) * invstd.

    `count` and the sums are those of the whole batch, of which `dy` and `x` may be a part.
    """
    fit, dy, x, dx, dy_address, x_address, dx_address = _direct.backward(dy, x, axis, out)
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
        fit.shape, fit.code, dy_address, x_address, gamma_address, *map(address, statistics), dx_address, chosen
    )
    if status:
        raise_error(status)
    return dx
