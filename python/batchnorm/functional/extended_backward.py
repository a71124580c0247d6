# SPDX-License-Identifier: Apache-2.0
"""backward() of a forward call with extras, or of statistics alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from .._core import structs
from .._core.arrange import CallTensors
from .._core.arrays import Array, address, tensor
from .._core.held import check_again, check_axis_again, check_x, held
from .._core.layout import Axis, Plan
from .._core.options import member
from .._core.structs import PerGroup, sized
from ..settings.groups import Grouping
from ..settings.sources import struct_of
from . import native
from .descriptors import arranged, epilogue_of, options_with, with_rows
from .extras import SavedExtras
from .saved import SavedStatistics


def backward(
    dy: ArrayLike,
    x: ArrayLike,
    saved: SavedStatistics,
    gamma: ArrayLike | None,
    axis: Axis | None,
    out: Array | None,
    from_output: bool,
    residual_out: Array | None,
) -> tuple[Array, ...]:
    """See functional.backward()."""
    if not isinstance(saved, SavedStatistics):
        raise TypeError(f"saved is of type {type(saved).__name__}, expected what forward_training() returned")
    extras = saved._extras or SavedExtras()
    _check_output(extras, from_output, residual_out)
    if saved._axis is None:
        axis = 1 if axis is None else axis
    else:
        if axis is not None:
            check_axis_again(axis, saved._axis, tensor(x, "x").ndim)
        axis = saved._axis
    given = {"x": x, "dy": dy, "residual": extras.residual}
    taken = {"out": out, "residual_out": residual_out} if extras.has_residual else {"out": out}
    exactly = extras.order if extras.bits is not None else None
    tensors, group, _ = arranged(given, taken, axis, extras.positions, extras.groups, exactly)
    check_x(tensors.arrays["x"], saved._shape, saved._dtype)
    expected = with_rows(tensors.fit, group, PerGroup.STATISTICS)
    if saved.channels != expected.channels:
        raise ValueError(
            f"saved has statistics of shape {saved.channel_shape}, expected {expected.channel_shape} beside this x"
        )
    fit, parameters = known_parameters(saved, gamma, tensors.fit, group)
    return _backward(tensors, fit, saved, extras, group, parameters, axis, from_output)


def known_parameters(
    saved: SavedStatistics, gamma: ArrayLike | None, fit: Plan, group: Grouping | None = None
) -> tuple[Plan, tuple[bytes | None, bytes | None]]:
    """gamma and beta of the forward call, and the plan of a call with them. `gamma` is what is given once more."""
    if saved._dtype is not None:
        fit = saved._beside(fit)
        check_again(gamma, saved._gamma, "gamma", with_rows(fit, group, PerGroup.PARAMETERS))
        return fit, (saved._gamma, saved._beta)
    # frozen_statistics() knows no dtype to hold them in.
    known, beta = saved._gamma, saved._beta
    fit = fit.beside(gamma if known is None else known, beta)
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    if known is None:
        return fit, (held(gamma, "gamma", affine), held(beta, "beta", affine))
    data = held(known, "gamma", affine)
    check_again(gamma, data, "gamma", affine)
    return fit, (data, held(beta, "beta", affine))


def _backward(
    tensors: CallTensors,
    fit: Plan,
    saved: SavedStatistics,
    extras: SavedExtras,
    group: Grouping | None,
    parameters: tuple[bytes | None, bytes | None],
    axis: Axis,
    from_output: bool,
) -> tuple[Array, ...]:
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    dgamma, dbeta = np.empty((2, *affine.channel_shape), fit.param)
    dx = tensors.arrays["out"]
    descriptors: dict[str, Any] = {
        "epilogue": epilogue_of(extras.activation, tensors, extras.bits, from_output),
        "groups": None if group is None else group.struct,
    }
    if extras.source is not None and extras.of_source is not None and not saved._frozen:
        descriptors["source"] = struct_of(extras.source, extras.of_source, tensors.arrays["x"], axis)
    if extras.single_value != "error":
        # A group of a single value may have had constants for statistics, beside others that had their own.
        single_value = member(structs.SingleValue, extras.single_value, "single_value")
        descriptors["running"] = sized(structs.Running(0, single_value=single_value))
    told = options_with(descriptors, frozen=saved._frozen, param_code=fit.param_code)
    given = tensors.address("dy"), tensors.address("x")
    gradients = address(dgamma), address(dbeta)
    native.backward(fit, *given, parameters, saved._addresses(), address(dx), gradients, told)
    results = (dx, dgamma, dbeta)
    return (*results, tensors.arrays["residual_out"]) if extras.has_residual else results


def _check_output(extras: SavedExtras, from_output: bool, residual_out: object) -> None:
    if from_output and extras.has_residual:
        raise ValueError("from_output is True, but the forward call added a residual, which y does not tell")
    if from_output and not extras.activation.has_inverse:
        raise ValueError("from_output is True, but the forward call's activation has no inverse")
    if residual_out is not None and not extras.has_residual:
        kind = "ndarray" if type(residual_out) is ndarray else type(residual_out).__name__
        raise ValueError(f"residual_out is of type {kind}, but the forward call had no residual: expected None")
