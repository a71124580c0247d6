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
With `groups` they have a row for each group that has statistics of its own: (groups, channels).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._core import direct
from .._core.arrays import Array, Doubles, address, doubles, parameter
from .._core.foreign import in_own_kind
from .._core.layout import Axis
from .._core.library import lib
from .._core.options import options
from .._core.public import publish
from .._core.structs import PerGroup
from .._core.weights import Masked, PositionWeights
from ..settings.activations import Activation
from ..settings.groups import Groups, options_of
from . import extended, native
from .descriptors import arranged, options_with, with_rows
from .extras import Extras


@publish
class Sums(NamedTuple):
    """sum(dy) and sum(dy * x_hat): float64 arrays in the shape of the channel axes, one element per channel."""

    sum_dy: Doubles
    sum_dy_x_hat: Doubles


@in_own_kind
def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    out: Array | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> Array:
    """y = activation(gamma * (x - mean) * invstd + beta + residual): x normalized with statistics that are given.

    Parameters
    ----------
    x, gamma, beta, axis, out, activation, residual
        As in forward_training(). x may have any number of values per channel.
    mean, invstd : array_like of real numbers, one element per channel
        As from merge_moments() and inverse_std(). They are read as float64.
    weights, lengths, masked, groups
        As in forward_training(); here weights only matter to `masked`.

    Returns
    -------
    y : ndarray, or a tensor of x's kind
        `out`, or a new dense array in x's memory order.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training(). A TypeError also if `mean` or `invstd` has a dtype that NumPy does not cast to float64
        safely.
    """
    extras = Extras(activation, residual, weights, lengths, masked, groups=groups)
    if extras.activation is not None or residual is not None or groups is not None or extras.positions():
        return extended.normalize(x, mean, invstd, extended.Channels(gamma, beta), extras, axis=axis, out=out)
    fit, x, y, x_address, y_address = direct.forward(x, axis, out)
    mean = doubles(mean, "mean", fit.channel_shape)
    invstd = doubles(invstd, "invstd", fit.channel_shape)
    fit = fit.beside(gamma, beta)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    beta, beta_address = parameter(beta, "beta", fit)
    affine, told = (gamma_address, beta_address), options(param_code=fit.param_code)
    native.normalize(fit, x_address, affine, (address(mean), address(invstd)), y_address, told)
    return y


def backward_reduce(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    *,
    axis: Axis = 1,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> Sums:
    """sum(dy) and sum(dy * x_hat), x_hat = (x - mean) * invstd, of this part of the batch: its dbeta and dgamma.

    Parameters
    ----------
    dy : array_like of x's shape and dtype
        The gradient with respect to gamma * x_hat + beta. Copied once if its memory order is not that of x.
    x, mean, invstd, axis
        As in normalize().
    weights, lengths, masked
        As in forward_training(). They only choose the values of dy that count: all of them with "normalize"; with
        "zero" and "keep", those at positions of a weight above 0.
    groups
        As in forward_training().

    Returns
    -------
    Sums
        (sum_dy, sum_dy_x_hat), not rounded to the dtype of x. With any `groups` they have a row for each: those of
        Ghost(1) are sums of each sample, if mean and invstd, which have rows as well then, are repeated.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in normalize(). A ValueError or TypeError also if dy has another shape or dtype than x.
    """
    positions = PositionWeights(weights, lengths, masked)
    tensors, group, _ = arranged({"x": x, "dy": dy, "residual": None}, {}, axis, positions, groups)
    fit = tensors.fit
    statistics = with_rows(fit, group, PerGroup.STATISTICS).channel_shape
    mean, invstd = doubles(mean, "mean", statistics), doubles(invstd, "invstd", statistics)
    result = Sums(*np.empty((2, *(() if group is None else (group.groups,)), *fit.channel_shape)))
    lib.bn_backward_reduce(
        fit.shape,
        fit.code,
        tensors.address("dy"),
        tensors.address("x"),
        address(mean),
        address(invstd),
        *map(address, result),
        0,
        options_of(group),
    )
    return result


@in_own_kind
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
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> Array:
    """dx = gamma * invstd * (dy - w * sum_dy / count - w * x_hat * sum_dy_x_hat / count), x_hat = (x - mean) * invstd.

    Parameters
    ----------
    dy, x, mean, invstd, axis
        As in backward_reduce(). `dy` and `x` may be a part of the batch.
    count, sum_dy, sum_dy_x_hat : array_like of real numbers, one element per channel
        The number of values, or with weights their sum, and the sums of backward_reduce(), all of the whole batch. They
        are read as float64. A count is finite and above 0.
    gamma
        As in forward_training().
    out : ndarray, optional
        Takes dx in place. It may be dy itself; any other overlap is an error.
    weights, lengths, masked
        As in forward_training(). The weights w are 1 unless they are given. Where w is 0, dx is 0 with "zero" and dy
        with "keep".
    groups
        As in forward_training(). Of Conditional, which shares its statistics, the sums are of gamma * dy: each group's
        sums times its gamma, added up.

    Returns
    -------
    dx : ndarray, or a tensor of dy's kind
        `out`, or a new dense array in x's memory order.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in backward_reduce(). A ValueError also if a count is not finite, or not above 0.
    """
    positions = PositionWeights(weights, lengths, masked)
    tensors, group, _ = arranged({"x": x, "dy": dy, "residual": None}, {"out": out}, axis, positions, groups)
    shape = with_rows(tensors.fit, group, PerGroup.STATISTICS).channel_shape
    statistics = [
        doubles(value, name, shape)
        for name, value in {
            "mean": mean,
            "invstd": invstd,
            "count": count,
            "sum_dy": sum_dy,
            "sum_dy_x_hat": sum_dy_x_hat,
        }.items()
    ]
    fit = tensors.fit.beside(gamma)
    gamma, gamma_address = parameter(gamma, "gamma", with_rows(fit, group, PerGroup.PARAMETERS))
    told = options_with({"groups": None if group is None else group.struct}, param_code=fit.param_code)
    given, dx = (tensors.address("dy"), tensors.address("x"), gamma_address), tensors.arrays["out"]
    lib.bn_backward_apply(fit.shape, fit.code, *given, *map(address, statistics), address(dx), told)
    return dx
