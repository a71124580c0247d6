# SPDX-License-Identifier: Apache-2.0
"""backward() of a forward call that was told something, or of which no more is known than its statistics."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from . import _c_structs
from ._arrays import Array, address, tensor
from ._c_api import lib, raise_error
from ._c_structs import PerGroup
from ._described import arranged, epilogue_of, with_rows
from ._held import check_again, check_axis_again, check_x, held
from ._layout import BITS, Axis, Plan
from ._options import make_options
from ._together import Together
from .groups import Grouping
from .policies import member, sized
from .saved import SavedStatistics, Told
from .sources import struct_of


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
    told = saved._told or Told()
    _check_output(told, from_output, residual_out)
    if getattr(x, "dtype", None) == BITS:
        told = told._replace(residual=_as_bits(told.residual))
    if saved._axis is None:
        axis = 1 if axis is None else axis
    else:
        if axis is not None:
            check_axis_again(axis, saved._axis, tensor(x, "x").ndim)
        axis = saved._axis
    given = {"x": x, "dy": dy, "residual": told.residual}
    taken = {"out": out, "residual_out": residual_out} if told.has_residual else {"out": out}
    exactly = told.order if told.bits is not None else None
    tensors, group, _ = arranged(given, taken, axis, told.counted, told.groups, exactly)
    check_x(tensors.arrays["x"], saved._shape, saved._dtype)
    expected = with_rows(tensors.fit, group, PerGroup.STATISTICS)
    if saved.channels != expected.channels:
        raise ValueError(
            f"saved has statistics of shape {saved.channel_shape}, expected {expected.channel_shape} beside this x"
        )
    fit, parameters = known_parameters(saved, gamma, tensors.fit, group)
    return _backward(tensors, fit, saved, told, group, parameters, axis, from_output)


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
    if fit.dtype == BITS:
        known, beta, gamma = (_as_bits(value) for value in (known, beta, gamma))
    fit = fit.beside(gamma if known is None else known, beta)
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    if known is None:
        return fit, (held(gamma, "gamma", affine), held(beta, "beta", affine))
    data = held(known, "gamma", affine)
    check_again(gamma, data, "gamma", affine)
    return fit, (data, held(beta, "beta", affine))


def _backward(
    tensors: Together,
    fit: Plan,
    saved: SavedStatistics,
    told: Told,
    group: Grouping | None,
    parameters: tuple[bytes | None, bytes | None],
    axis: Axis,
    from_output: bool,
) -> tuple[Array, ...]:
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    dgamma, dbeta = np.empty((2, *affine.channel_shape), fit.param)

    dx = tensors.arrays["out"]
    options = make_options(frozen=saved._frozen, param_code=fit.param_code)
    if told.source is not None and told.of_source is not None and not saved._frozen:
        options.source = ctypes.pointer(struct_of(told.source, told.of_source, tensors.arrays["x"], axis))
    if told.single_value != "error":
        # A group of a single value may have had constants for statistics, beside others that had their own.
        running = _c_structs.Running(0, single_value=member(_c_structs.SingleValue, told.single_value, "single_value"))
        options.running = ctypes.pointer(sized(running))
    if group is not None:
        options.groups = ctypes.pointer(group.struct)
    epilogue = epilogue_of(told.activation, tensors, told.bits, from_output)
    if epilogue is not None:
        options.epilogue = ctypes.pointer(epilogue)
    status = lib.bn_backward(
        fit.shape,
        fit.code,
        tensors.address("dy"),
        tensors.address("x"),
        *parameters,
        *saved._addresses(),
        address(dx),
        address(dgamma),
        address(dbeta),
        options,
    )
    if status:
        raise_error(status)
    results = (dx, dgamma, dbeta)
    return (*results, tensors.arrays["residual_out"]) if told.has_residual else results


def _as_bits(value: Any) -> Any:
    """What was given for a forward call whose dtype said that uint16 are the bits of bfloat16; as in as_bfloat16()."""
    return value.view(BITS) if type(value) is ndarray and value.dtype == np.uint16 else value


def _check_output(told: Told, from_output: bool, residual_out: object) -> None:
    if from_output and told.has_residual:
        raise ValueError("from_output is True, but the forward call added a residual, which y does not tell")
    if from_output and not told.activation.has_inverse:
        raise ValueError("from_output is True, but the forward call's activation has no inverse")
    if residual_out is not None and not told.has_residual:
        kind = "ndarray" if type(residual_out) is ndarray else type(residual_out).__name__
        raise ValueError(f"residual_out is of type {kind}, but the forward call had no residual: expected None")
