# SPDX-License-Identifier: Apache-2.0
"""Derivatives beyond the gradient: along a direction (forward mode), and of the gradient itself (double backward).

With P(v) = invstd * (v - mean(v) - x_hat * mean(v * x_hat)), or invstd * v with frozen statistics, dx = gamma * P(dy);
and P makes up the rest as well. Nothing of the tensors' size is allocated but the results, and copies of tensors that
lie in another memory order than x, or, for double_backward(), have gaps.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrange import CallTensors, arrange
from .._core.arrays import Array, address, parameter, tensor
from .._core.foreign import in_own_kind
from .._core.held import check_axis_again, check_x
from .._core.layout import Axis, Plan, as_axis, channel_axes
from .._core.library import lib
from .._core.structs import Options, Outcome, PerGroup, Shape
from ..settings.groups import Conditional, Grouping, Groups, grouping
from .descriptors import options_with, with_rows
from .extended_backward import known_parameters
from .saved import SavedStatistics


@in_own_kind
def jvp(
    x: ArrayLike,
    saved: SavedStatistics,
    *,
    gamma: ArrayLike | None = None,
    x_tangent: ArrayLike | None = None,
    gamma_tangent: ArrayLike | None = None,
    beta_tangent: ArrayLike | None = None,
    axis: Axis | None = None,
    out: Array | None = None,
) -> Array:
    """The derivative of y along a direction of x, gamma and beta: a Jacobian-vector product, forward mode.

    ::

        y_tangent = gamma * P(x_tangent) + gamma_tangent * x_hat + beta_tangent

    Parameters
    ----------
    x
        As in the forward call, which had no activation, residual, weights or source.
    saved : SavedStatistics
        The second result of forward_training(); or frozen_statistics(), whose P is that of constants.
    gamma, axis
        Not needed, and checked, as in backward().
    x_tangent : array_like of x's shape and dtype, optional
        None stands for 0.
    gamma_tangent, beta_tangent : array_like of the parameters' dtype and shape, optional
        None stands for 0.
    out : ndarray, optional
        Takes y_tangent in place; it may be `x_tangent` itself.

    Returns
    -------
    y_tangent : ndarray
        `out`, or a new dense array in x's memory order.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training(). A ValueError also if the forward call had an activation, residual, weights or source,
        or normalized some groups, of one value, with the running statistics.

    Examples
    --------
    The change of y with x, checked by a small step:

    >>> import numpy as np
    >>> import batchnorm as bn
    >>> x = np.array([[1.0, 5.0], [2.0, 7.0], [6.0, 3.0]])
    >>> direction = np.array([[1.0, 0.0], [0.0, -1.0], [0.5, 2.0]])
    >>> y, saved = bn.forward_training(x)
    >>> moved, _ = bn.forward_training(x + 1e-6 * direction)
    >>> tangent = bn.jvp(x, saved, x_tangent=direction)
    >>> print(np.allclose(tangent, (moved - y) / 1e-6, atol=1e-5))
    True
    """
    axis = _axis(saved, axis, x)
    groups = _groups(saved)
    tensors = arrange({"x": x, "x_tangent": x_tangent}, {"out": out}, axis, groups is not None)
    group, affine, scale = _known(saved, gamma, tensors, (groups, axis), gamma_tangent, beta_tangent)
    gamma_tangent, gamma_tangent_address = parameter(gamma_tangent, "gamma_tangent", affine)
    beta_tangent, beta_tangent_address = parameter(beta_tangent, "beta_tangent", affine)
    lib.bn_jvp(
        _shape(tensors, y="out", dx="x_tangent"),
        affine.code,
        tensors.address("x"),
        tensors.address("x_tangent"),
        scale,
        gamma_tangent_address,
        beta_tangent_address,
        *saved._addresses(),
        tensors.address("out"),
        _options(saved, group, affine),
    )
    return tensors.arrays["out"]


@in_own_kind
def double_backward(
    dy: ArrayLike,
    x: ArrayLike,
    saved: SavedStatistics,
    *,
    gamma: ArrayLike | None = None,
    grad_dx: ArrayLike | None = None,
    grad_dgamma: ArrayLike | None = None,
    grad_dbeta: ArrayLike | None = None,
    axis: Axis | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of backward() with respect to dy, x and gamma, given those with respect to its results.

    With U = sum(grad_dx * x_hat), G = sum(dy * x_hat) and A = sum(grad_dx * (dy - mean(dy))) - U * G / M::

        grad_dy    = gamma * P(grad_dx) + grad_dgamma * x_hat + grad_dbeta
        grad_x     = grad_dgamma * P(dy) - gamma * invstd / M * (U * P(dy) + G * P(grad_dx) + invstd * A * x_hat)
        grad_gamma = invstd * A

    and with frozen statistics grad_x = grad_dgamma * P(dy) and grad_gamma = invstd * sum(grad_dx * dy).

    Parameters
    ----------
    dy, x, saved, gamma, axis
        As in backward(), which needs no gamma and axis. The forward call had no activation, residual, weights or
        source.
    grad_dx : array_like of x's shape and dtype, optional
        None stands for 0.
    grad_dgamma, grad_dbeta : array_like of the parameters' dtype and shape, optional
        None stands for 0.

    Returns
    -------
    grad_dy, grad_x : ndarray
        New dense arrays in x's memory order.
    grad_gamma : ndarray
        As dgamma of backward().

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in backward(). A ValueError also if jvp() would not take `saved`, or if groups share statistics that are not
        frozen, and have parameters of their own (Conditional).

    Examples
    --------
    The gradient, with respect to x, of a penalty sum(dx ** 2) / 2, whose own gradient with respect to dx is dx:

    >>> import numpy as np
    >>> import batchnorm as bn
    >>> x = np.array([[1.0], [2.0], [6.0], [3.0]])
    >>> dy = np.array([[1.0], [0.0], [0.0], [0.0]])
    >>> def penalty(x):
    ...     dx, _, _ = bn.backward(dy, x, bn.forward_training(x)[1])
    ...     return (dx**2).sum() / 2
    >>> _, saved = bn.forward_training(x)
    >>> dx, _, _ = bn.backward(dy, x, saved)
    >>> _, grad_x, _ = bn.double_backward(dy, x, saved, grad_dx=dx)
    >>> step = np.array([[1e-6], [0.0], [0.0], [0.0]])
    >>> print(f"{grad_x[0, 0]:.5f} {(penalty(x + step) - penalty(x - step)) / 2e-6:.5f}")
    0.03790 0.03790
    """
    axis = _axis(saved, axis, x)
    groups = _groups(saved)
    if isinstance(groups, Conditional) and not saved.frozen:
        raise ValueError(
            "saved is of groups that share their statistics (Conditional), expected frozen statistics then"
        )
    given = {"x": x, "dy": dy, "grad_dx": grad_dx}
    tensors = arrange(given, {"grad_dy": None, "grad_x": None}, axis, groups is not None)
    group, affine, scale = _known(saved, gamma, tensors, (groups, axis), grad_dgamma, grad_dbeta)
    # dx and its gradient have one stride, and so have dy and its own: the results are dense.
    tensors = _dense(tensors, "dy", "grad_dx")
    grad_dgamma, grad_dgamma_address = parameter(grad_dgamma, "grad_dgamma", affine)
    grad_dbeta, grad_dbeta_address = parameter(grad_dbeta, "grad_dbeta", affine)
    grad_gamma = np.empty(affine.channel_shape, affine.param)
    lib.bn_double_backward(
        _shape(tensors, y="grad_dy", dx="grad_x"),
        affine.code,
        tensors.address("grad_dx"),
        grad_dgamma_address,
        grad_dbeta_address,
        tensors.address("dy"),
        tensors.address("x"),
        scale,
        *saved._addresses(),
        tensors.address("grad_dy"),
        tensors.address("grad_x"),
        address(grad_gamma),
        _options(saved, group, affine),
    )
    return tensors.arrays["grad_dy"], tensors.arrays["grad_x"], grad_gamma


def _axis(saved: SavedStatistics, axis: Axis | None, x: ArrayLike) -> Axis:
    """The channel axis: the forward call's, or if only frozen_statistics() is known, the one that is given."""
    if not isinstance(saved, SavedStatistics):
        raise TypeError(f"saved is of type {type(saved).__name__}, expected what forward_training() returned")
    if saved._axis is None:
        return 1 if axis is None else axis
    if axis is not None:
        check_axis_again(axis, saved._axis, tensor(x, "x").ndim)
    return saved._axis


def _groups(saved: SavedStatistics) -> Groups | None:
    """The groups of the forward call, which had nothing else that derivatives do not know of."""
    if not saved.is_plain:
        raise ValueError(
            "saved is of a call with an activation, residual, weights or source, expected a call without them"
        )
    outcome = saved.outcome
    if isinstance(outcome, np.ndarray) and (outcome == Outcome.RUNNING).any() and not saved.frozen:
        raise ValueError(
            "saved is of groups of which some were normalized with running statistics, expected all or none"
        )
    return None if saved._extras is None else saved._extras.groups


def _known(
    saved: SavedStatistics,
    gamma: ArrayLike | None,
    tensors: CallTensors,
    groups: tuple[Groups | None, Axis],
    *others: ArrayLike | None,
) -> tuple[Grouping | None, Plan, bytes | None]:
    """The groups of a call, its plan with the rows of parameters, and the forward call's gamma; `others` tell the dtype
    where that call had no parameters.
    """
    x = tensors.arrays["x"]
    check_x(x, saved._shape, saved._dtype)
    group = grouping(groups[0], x.shape, channel_axes(as_axis(groups[1]), x.ndim))
    expected = with_rows(tensors.fit, group, PerGroup.STATISTICS)
    if saved.channels != expected.channels:
        raise ValueError(f"saved is of {saved.channels} channels, but x has {expected.channels}")
    fit, (scale, beta) = known_parameters(saved, gamma, tensors.fit, group)
    fit = fit.beside(*others) if scale is None and beta is None else fit
    return group, with_rows(fit, group, PerGroup.PARAMETERS), scale


def _options(saved: SavedStatistics, group: Grouping | None, fit: Plan) -> Options:
    told = {"groups": None if group is None else group.struct}
    return options_with(told, frozen=saved.frozen, param_code=fit.param_code)


def _shape(tensors: CallTensors, *, y: str, dx: str) -> Shape:
    """The shape of a call of which these have the strides of y and dx."""
    shape, strides = tensors.fit.shape, tensors.strides
    extents = shape.outer, shape.channels, shape.inner
    return Shape(ctypes.sizeof(Shape), *extents, strides["x"], strides.get(y, 0), strides.get(dx, 0))


def _dense(tensors: CallTensors, *names: str) -> CallTensors:
    """The tensors, those copied that have other strides than the results."""
    arrays, strides = dict(tensors.arrays), dict(tensors.strides)
    for name in names:
        if name in arrays and strides[name] != strides["grad_x"]:
            arrays[name] = np.empty_like(arrays["grad_x"])
            np.copyto(arrays[name], tensors.arrays[name])
            strides[name] = strides["grad_x"]
    return tensors._replace(arrays=arrays, strides=strides)
