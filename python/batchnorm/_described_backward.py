# SPDX-License-Identifier: Apache-2.0
"""backward() of a forward call that was told something: what it was is in its SavedCall."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from ._arrays import Array, address, parameter
from ._c_api import lib, raise_error
from ._c_structs import Outcome, PerGroup
from ._described import arranged, epilogue_of, with_rows
from ._layout import BITS, Axis, Plan
from ._options import make_options
from ._together import Together
from .groups import Grouping
from .saved import SavedStatistics, Told
from .sources import struct_of


def backward(
    dy: ArrayLike,
    x: ArrayLike,
    saved: SavedStatistics,
    gamma: ArrayLike | None,
    axis: Axis,
    out: Array | None,
    from_output: bool,
    residual_out: Array | None,
) -> tuple[Array, ...]:
    """See functional.backward()."""
    if not isinstance(saved, SavedStatistics):
        raise TypeError(f"saved is of type {type(saved).__name__}, expected what forward_training() returned")
    told = saved._told
    if told is None:
        if from_output:
            raise ValueError("from_output needs beta: give the forward call an activation, be it 'identity'")
        told = Told()
    _check_output(told, from_output, residual_out)
    if getattr(x, "dtype", None) == BITS:
        told = told._replace(residual=_as_bits(told.residual), beta=_as_bits(told.beta))
    given = {"x": x, "dy": dy, "residual": told.residual}
    taken = {"out": out, "residual_out": residual_out} if told.has_residual else {"out": out}
    exactly = told.order if told.bits is not None else None
    tensors, group, _ = arranged(given, taken, axis, told.counted, told.groups, exactly)
    fit = tensors.fit.beside(gamma, told.beta)
    if told.shape is not None and tensors.arrays["x"].shape != told.shape:
        raise ValueError(f"x has shape {tensors.arrays['x'].shape}, expected {told.shape}, that of the forward call")
    expected = with_rows(fit, group, PerGroup.STATISTICS)
    if saved.channels != expected.channels:
        raise ValueError(
            f"saved has statistics of shape {saved.channel_shape}, expected {expected.channel_shape} beside this x"
        )
    return _backward(tensors, fit, saved, told, group, gamma, axis, from_output)


def _backward(
    tensors: Together,
    fit: Plan,
    saved: SavedStatistics,
    told: Told,
    group: Grouping | None,
    gamma: ArrayLike | None,
    axis: Axis,
    from_output: bool,
) -> tuple[Array, ...]:
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    gamma, gamma_address = parameter(gamma, "gamma", affine)
    _beta, beta_address = parameter(told.beta, "beta", affine)
    dgamma, dbeta = np.empty((2, *affine.channel_shape), fit.param)

    def call(frozen: bool, parameters: tuple[Array, ...]) -> None:
        options = make_options(frozen=frozen, param_code=fit.param_code)
        if told.source is not None and told.of_source is not None and not frozen:
            struct = struct_of(told.source, told.of_source, tensors.arrays["x"], axis)
            options.source = ctypes.pointer(struct)
        if group is not None:
            options.groups = ctypes.pointer(group.struct)
        epilogue = epilogue_of(told.activation, tensors, told.bits, from_output)
        if epilogue is not None:
            options.epilogue = ctypes.pointer(epilogue)
            if not parameters:
                epilogue.dz = None
        status = lib.bn_backward(
            fit.shape,
            fit.code,
            tensors.address("dy"),
            tensors.address("x"),
            gamma_address,
            beta_address,
            saved.mean_address,
            saved.invstd_address,
            tensors.address("out"),
            *(map(address, parameters) if parameters else (None, None)),
            options,
        )
        if status:
            raise_error(status)

    dx = tensors.arrays["out"]
    outcomes = saved._outcomes
    some_frozen = None if outcomes is None else outcomes == Outcome.RUNNING
    if some_frozen is None or not some_frozen.any() or some_frozen.all() or group is None:
        call(saved.frozen, (dgamma, dbeta))
    else:
        # Groups of a single value had constants for statistics, the others their own: each from the call that is so.
        dy, samples = tensors.arrays["dy"], np.flatnonzero(some_frozen[group.of_sample[: len(dx)]])
        kept = dy.copy() if np.may_share_memory(dx, dy) else None
        call(True, ())
        of_constants = dx[samples]
        if kept is not None:
            np.copyto(dy, kept)
        call(False, (dgamma, dbeta))
        dx[samples] = of_constants
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
