# SPDX-License-Identifier: Apache-2.0
"""The gradient of batch normalization: from dy to dx, dgamma and dbeta."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from .._core import built_ins, direct
from .._core.arrays import Array, address
from .._core.foreign import like
from .._core.held import check_again, check_axis_again, check_x
from .._core.layout import Axis
from .._core.makers import NUMPY, TORCH
from .._core.options import options
from .._core.records import AXIS, PARAMETER
from . import extended_backward, native
from .saved import SavedStatistics


def backward(
    dy: ArrayLike,
    x: ArrayLike,
    saved: SavedStatistics,
    *,
    gamma: ArrayLike | None = None,
    axis: Axis | None = None,
    out: Array | None = None,
    from_output: bool = False,
    residual_out: Array | None = None,
) -> tuple[Array, ...]:
    """Gradients of a loss with respect to x, gamma and beta, given its gradient dy with respect to y.

    ::

        dbeta = sum(dy)        dgamma = sum(dy * x_hat)
        dx    = gamma * invstd * (dy - dbeta / M - x_hat * dgamma / M)        after forward_training()
        dx    = gamma * invstd * dy                                           with frozen_statistics()

    They follow from those of Ioffe and Szegedy (arXiv:1502.03167, section 3). M is the number of values per channel.
    `saved` has all arguments of the forward call but x, which must be as it was: that it has changed in place is not
    noticed. After an activation dy stands for dy * activation'(u), which is the gradient dz of the residual as well.
    With weights w::

        dx    = gamma * invstd * (dy - w * dbeta / W - w * x_hat * dgamma / W)        W = sum(w)

    Parameters
    ----------
    dy : array_like of x's shape and dtype
        Copied once if its memory order is not that of x.
    x
        As in the forward call.
    saved : SavedStatistics
        The second result of a forward call, or frozen_statistics().
    gamma, axis
        Not needed. If they are given, they have to be those of the forward call, of which `saved` knows, or those that
        frozen_statistics() was not given.
    out : ndarray, optional
        Takes dx in place. It may be dy itself; any other overlap is an error.
    from_output : bool, default False
        x is the forward call's y, which may have been written over its x (arXiv:1712.02616). The forward call had no
        residual, and for activation None, "identity" or a LeakyReLU of a slope above 0; no gamma is 0. Digits are lost
        where beta is large beside gamma.
    residual_out : ndarray, optional
        Takes dz in place, if the forward call had a residual. It may be dy itself.

    Returns
    -------
    dx : ndarray, or a tensor of dy's kind
        `out`, or a new dense array in x's memory order.
    dgamma, dbeta : as dx
        They have gamma's dtype and shape (without gamma: the dtype of x, or float32 for an x of 16 bits).
    dz : ndarray
        `residual_out`, or a new array as dx; only if the forward call had a residual.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training(). A ValueError also if x, gamma or axis is not that of the forward call.
    """
    is_plain = gamma is None and axis is None and residual_out is None and not from_output
    record = saved._record if is_plain and type(saved) is SavedStatistics else None
    if record is not None:
        found = by_record(dy, x, record, out)
        if found is not None:
            return found
    if type(saved) is not SavedStatistics or saved._dtype is None or from_output or residual_out is not None:
        results = extended_backward.backward(dy, x, saved, gamma, axis, out, from_output, residual_out)
        dx, dgamma, dbeta, *dz = results
        rest = (like(dy, each) for each in (dgamma, dbeta))
        return (like(dy, dx, out), *rest, *(like(dy, each, residual_out) for each in dz))
    assert saved._axis is not None, "a forward call tells it"
    given = dy
    fit, dy, x, dx, dy_address, x_address, dx_address = direct.backward(dy, x, saved._axis, out)
    if x.shape != saved._shape or fit.dtype != saved._dtype:
        check_x(x, saved._shape, saved._dtype)
    fit = saved._beside(fit)
    if axis is not None:
        check_axis_again(axis, saved._axis, x.ndim)
    if gamma is not None:
        check_again(gamma, saved._gamma, "gamma", fit)
    dgamma = np.empty(fit.channel_shape, fit.param)
    dbeta = np.empty(fit.channel_shape, fit.param)
    told, parameters = options(frozen=saved._frozen, param_code=fit.param_code), (saved._gamma, saved._beta)
    gradients = address(dgamma), address(dbeta)
    native.backward(fit, dy_address, x_address, parameters, saved._addresses(), dx_address, gradients, told)
    return like(given, dx, out), like(given, dgamma), like(given, dbeta)


def by_record(dy: Any, x: Any, record: bytes, out: Any, vectors: Any = None) -> tuple[Any, Any, Any] | None:
    """dx, dgamma and dbeta by a built-in function; None if the tensors are not plain, or not those of the record.

    `vectors` makes dgamma and dbeta, in place of the maker of x.
    """
    built_in = built_ins.backward
    axis = record[AXIS]
    if axis > 127:
        axis -= 256
    maker: Any = NUMPY if type(x) is ndarray else TORCH.get(type(x))
    if type(dy) is not type(x):
        return None  # dx is of dy's kind
    if (
        built_in is None
        or maker is None
        or (maker is not NUMPY and not maker.admits(x, dy, out))
        or not -x.ndim <= axis < x.ndim
    ):
        return None
    dx = maker.empty_like(x) if out is None else out
    vector, channels, kind = (vectors or maker).vector, x.shape[axis], record[PARAMETER]
    dgamma, dbeta = vector(channels, kind), vector(channels, kind)
    if built_in(dy, x, record, dx, dgamma, dbeta) is None:
        return None
    if maker is not NUMPY:
        maker.written(out)
    return dx, dgamma, dbeta
