# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as functions of arrays (Ioffe and Szegedy, 2015, arXiv:1502.03167).

With M values x_c in channel c::

    mean_c = sum(x_c) / M        var_c = sum((x_c - mean_c)**2) / M
    x_hat  = (x - mean_c) * invstd_c        invstd_c = 1 / sqrt(var_c + eps)
    y      = gamma_c * x_hat + beta_c

Which arrays are copied. An array goes to the library by pointer if it is dense in some order of its axes (C, Fortran,
transposed, channels-last views) or sliced along its outermost axes in memory only (every second sample, the first
channels of a channels-first array if the batch axis is the only one outside). Any other input is copied once: one that
is sliced along an inner axis, runs backwards, repeats elements, is misaligned, is a list, or has another memory order
than `out` or, without `out`, than x. So are gamma, beta and statistics that are only read, if they are not contiguous.
Outputs and running statistics that are updated are written in place or refused, never copied.

Subclasses of ndarray are taken for what they hold, and results are plain arrays; masked arrays are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _direct
from ._arrays import Array, address, as_bfloat16, as_uint16, parameter, running
from ._c_api import lib, raise_error
from ._layout import Axis
from ._options import DEFAULT_MOMENTUM, options, weight_of_new
from .saved import SavedStatistics


def forward_training(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    axis: Axis = 1,
    momentum: float = DEFAULT_MOMENTUM,
    decay: float | None = None,
    eps: float = 1e-5,
    unbiased: bool = True,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[Array, SavedStatistics]:
    """Normalizes x with the mean and the biased variance of this batch, and moves the running statistics towards them.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16 (of the package ml_dtypes, or see `dtype`)
        At least two values per channel, or none: an empty batch leaves the running statistics alone.
    gamma, beta : array_like of x's dtype, one element per channel, optional
        Scale and shift; None stands for 1 and for 0. Beside an x of 16 bits parameters and running statistics are
        float32 or, all of them, of x's dtype.
    running_mean, running_var : ndarray of the parameters' dtype, one element per channel, optional
        Updated in place: running = (1 - momentum) * running + momentum * batch. Both or neither.
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones in ascending order; parameters then have the shape of the group or
        are flat.
    momentum : float, default 0.1
        Weight of the new batch, as in PyTorch and cuDNN. The n-th batch with 1 / n gives the cumulative average.
    decay : float, optional
        Weight of the old average, as in Keras, flax and ONNX, in place of `momentum`.
    eps : float, default 1e-5
        Added to the variance. With 0, a channel of zero variance gives beta.
    unbiased : bool, default True
        Whether running_var takes sum((x - mean)**2) / (M - 1), as in the paper and PyTorch, or / M, as in Keras.
    out : ndarray, optional
        Takes y in place. It may be x itself; any other overlap is an error.
    dtype : "bfloat16", optional
        Says that the uint16 elements of x, `out` and the parameters are the bits of bfloat16 numbers.

    Returns
    -------
    y : ndarray
        `out`, or a new dense array in x's memory order.
    saved : SavedStatistics
        mean and invstd, for backward().

    Raises
    ------
    ValueError
        A shape, length, axis, option or output does not fit, arrays overlap, or there is one value per channel.
    TypeError
        A dtype is none of the above, or does not go with that of x.
    MemoryError
        Working memory, a few numbers per channel, could not be had.
    RuntimeError
        BATCHNORM_ISA or BATCHNORM_NUM_THREADS cannot be honoured.
    """
    if dtype is not None:
        names = ("x", "gamma", "beta", "running_mean", "running_var")
        given = [as_bfloat16(a, n, dtype) for a, n in zip((x, gamma, beta, running_mean, running_var), names)]
        settings: dict[str, Any] = {"axis": axis, "momentum": momentum, "decay": decay, "eps": eps}
        y, saved = forward_training(*given, **settings, unbiased=unbiased, out=as_bfloat16(out, "out", dtype))
        return as_uint16(y) if out is None else out, saved
    fit, x, y, x_address, y_address = _direct.forward(x, axis, out)
    fit = fit.beside(gamma, beta, running_mean, running_var)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    beta, beta_address = parameter(beta, "beta", fit)
    saved = SavedStatistics(fit.channel_shape, frozen=False)
    status = lib.bn_forward_training(
        fit.shape,
        fit.code,
        x_address,
        gamma_address,
        beta_address,
        running(running_mean, "running_mean", fit),
        running(running_var, "running_var", fit),
        y_address,
        saved.mean_address,
        saved.invstd_address,
        options(eps, weight_of_new(momentum, decay), unbiased, False, fit.param_code),
    )
    if status:
        raise_error(status)
    return y, saved


def forward_inference(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    axis: Axis = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
) -> Array:
    """Like forward_training(), but normalizes with the running statistics, which stay as they are.

    One value per channel is fine. A negative running_var is used as it is: where it outweighs eps, y is NaN.
    frozen_statistics() gives what backward() needs.

    Parameters
    ----------
    x, gamma, beta, axis, eps, out, dtype
        As in forward_training().
    running_mean, running_var : array_like of x's dtype, one element per channel

    Returns
    -------
    y : ndarray
        gamma * (x - running_mean) / sqrt(running_var + eps) + beta.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training().
    """
    if dtype is not None:
        names = ("x", "gamma", "beta", "running_mean", "running_var")
        given = [as_bfloat16(a, n, dtype) for a, n in zip((x, gamma, beta, running_mean, running_var), names)]
        y = forward_inference(*given, axis=axis, eps=eps, out=as_bfloat16(out, "out", dtype))
        return as_uint16(y) if out is None else out
    fit, x, y, x_address, y_address = _direct.forward(x, axis, out)
    fit = fit.beside(gamma, beta, running_mean, running_var)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    beta, beta_address = parameter(beta, "beta", fit)
    running_mean, mean_address = parameter(running_mean, "running_mean", fit)
    running_var, var_address = parameter(running_var, "running_var", fit)
    if mean_address is None or var_address is None:
        raise ValueError(f"{'running_mean' if mean_address is None else 'running_var'} is None, expected an array")
    status = lib.bn_forward_inference(
        fit.shape,
        fit.code,
        x_address,
        gamma_address,
        beta_address,
        mean_address,
        var_address,
        y_address,
        None,
        None,
        options(eps, param_code=fit.param_code) if fit.param_code else options(eps),
    )
    if status:
        raise_error(status)
    return y


def backward(
    dy: ArrayLike,
    x: ArrayLike,
    saved: SavedStatistics,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = 1,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of a loss by x, gamma and beta, given its gradient dy by y.

    ::

        dbeta = sum(dy)        dgamma = sum(dy * x_hat)
        dx    = gamma * invstd * (dy - dbeta / M - x_hat * dgamma / M)        after forward_training()
        dx    = gamma * invstd * dy                                           with frozen_statistics()

    Parameters
    ----------
    dy : array_like of x's shape and dtype
        Copied once if its memory order is not that of x.
    x, gamma, axis, dtype
        As in the forward call.
    saved : SavedStatistics
        What forward_training() or frozen_statistics() gave.
    out : ndarray, optional
        Takes dx in place. It may be dy itself; any other overlap is an error.

    Returns
    -------
    dx : ndarray
        `out`, or a new dense array in x's memory order.
    dgamma, dbeta : ndarray
        Of gamma's dtype (without gamma: of x's, or float32 for an x of 16 bits), in the shape of the channel axes.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training().
    """
    if dtype is not None:
        dy, x, gamma = (as_bfloat16(a, n, dtype) for a, n in ((dy, "dy"), (x, "x"), (gamma, "gamma")))
        results = backward(dy, x, saved, gamma, axis=axis, out=as_bfloat16(out, "out", dtype))
        dx, dgamma, dbeta = (as_uint16(a) for a in results)
        return dx if out is None else out, dgamma, dbeta
    fit, dy, x, dx, dy_address, x_address, dx_address = _direct.backward(dy, x, axis, out)
    fit = fit.beside(gamma)
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    if not isinstance(saved, SavedStatistics):
        raise TypeError(f"saved is of type {type(saved).__name__}, expected what forward_training() returned")
    if saved.channels != fit.channels:
        raise ValueError(f"saved is of {saved.channels} channels, but x has {fit.channels}")
    dgamma = np.empty(fit.channel_shape, fit.param)
    dbeta = np.empty(fit.channel_shape, fit.param)
    status = lib.bn_backward(
        fit.shape,
        fit.code,
        dy_address,
        x_address,
        gamma_address,
        saved.mean_address,
        saved.invstd_address,
        dx_address,
        address(dgamma),
        address(dbeta),
        options(frozen=saved.frozen, param_code=fit.param_code),
    )
    if status:
        raise_error(status)
    return dx, dgamma, dbeta
