# SPDX-License-Identifier: Apache-2.0
"""Batch renormalization (arXiv:1702.03275) with the averages that Keras keeps for it.

The source Renorm finds r and d from running_mean and running_var. Keras has averages of the mean and of the standard
deviation for them, with a momentum of their own, so that the layer is put together from steps here::

    std = sqrt(var + eps)        s = max(renorm_stddev, sqrt(eps))
    r = std / s                  clipped to rmin and rmax
    d = (mean - renorm_mean) / s clipped to -dmax and dmax
    y = gamma * (x_hat * r + d) + beta

r and d are constants to the gradient::

    dgamma = r * sum(dy * x_hat) + d * sum(dy)        dbeta = sum(dy)
    dx     = r times that of the ordinary layer
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..._core.arrays import Array, Doubles
from ..._core.layout import parameter_dtype
from ..._core.rounding import cast
from ...functional.steps import backward_apply, backward_reduce, normalize
from ...statistics.functions import Moments, inverse_std, moments


class Renormed(NamedTuple):
    """A batch: its moments, sqrt(var + eps) and 1 over it, r and d, all per channel, and the weights of its positions.

    Without values it has mean and variance 0.
    """

    moments: Moments
    std: Doubles
    invstd: Doubles
    r: Doubles
    d: Doubles
    weights: Any

    @property
    def is_empty(self) -> bool:
        return not self.moments.count.any()


def correct(
    x: Array, axis: int, eps: float, mean: Array, stddev: Array, clipping: dict[str, float], weights: Any
) -> Renormed:
    """The batch x beside the averages renorm_mean and renorm_stddev."""
    batch = moments(x, axis, weights=weights)
    with np.errstate(all="ignore"):
        std: Doubles = np.sqrt(batch.m2 / np.maximum(batch.count, 1.0) + eps)
        average = np.maximum(stddev.astype(np.float64), math.sqrt(eps))
        r = np.clip(std / average, clipping.get("rmin", 0.0), clipping.get("rmax", math.inf))
        most = clipping.get("dmax", math.inf)
        d = np.clip((batch.mean - mean.astype(np.float64)) / average, -most, most)
    return Renormed(batch, std, inverse_std(batch.count, batch.m2, eps), r, d, weights)


def forward(x: Array, axis: int, batch: Renormed, gamma: Any, beta: Any) -> Array:
    """y. As x_hat * r + d = (x - mean + d / (invstd * r)) * (invstd * r), the library rounds it once."""
    with np.errstate(all="ignore"):
        factor = batch.invstd * batch.r
        # 0 where x has no part in y: with rmax 0, or with epsilon 0 in a constant channel. d has one all the same.
        factor = np.where(factor == 0, 1e-150, factor)
        centre = batch.moments.mean - batch.d / factor
    return normalize(x, centre, factor, gamma, beta, axis=axis)


def backward(dy: Array, x: Array, axis: int, batch: Renormed, gamma: Any) -> tuple[Array, Array, Array]:
    """dx, and dgamma and dbeta, not yet rounded."""
    (count, mean, _), _, invstd, r, d, weights = batch
    # Masked values are normalized as well, so that they count here.
    sum_dy, sum_dy_x_hat = backward_reduce(dy, x, mean, invstd, axis=axis)
    with np.errstate(all="ignore"):
        dgamma = r * sum_dy_x_hat + d * sum_dy
        scale = cast(r if gamma is None else gamma * r, parameter_dtype(x.dtype))
    # A count of 0 goes with weights of 0, or with no x at all.
    sums = np.maximum(count, 1.0), sum_dy, sum_dy_x_hat
    return backward_apply(dy, x, mean, invstd, *sums, scale, axis=axis, weights=weights), dgamma, sum_dy


def moved(average: Array, value: Doubles, momentum: float) -> Doubles:
    """The average with a batch's value, not yet rounded."""
    with np.errstate(all="ignore"):
        result: Doubles = momentum * average.astype(np.float64) + (1 - momentum) * value
    return result


def variance_of(stddev: Doubles, eps: float) -> Doubles:
    """The moving_variance that belongs to a moving_stddev, which has eps in it."""
    with np.errstate(all="ignore"):
        return np.maximum(stddev**2 - eps, 0.0)
