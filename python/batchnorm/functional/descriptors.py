# SPDX-License-Identifier: Apache-2.0
"""The extras of a call as the library takes them: tensors in one memory order, descriptors that options point to."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import direct, structs
from .._core.arrange import CallTensors, arrange
from .._core.arrays import Array, address, tensor
from .._core.layout import Axis, Plan, as_axis, channel_axes
from .._core.options import make_options
from .._core.structs import PerGroup, sized
from .._core.weights import PositionWeights, laid
from .._core.weights import struct_of as weights_struct
from ..settings.activations import ResolvedActivation
from ..settings.groups import Grouping, Groups, grouping


def arranged(
    given: dict[str, Any],
    taken: dict[str, Array | None],
    axis: Axis,
    positions: PositionWeights,
    groups: Groups | None,
    exactly: tuple[int, ...] | None = None,
) -> tuple[CallTensors, Grouping | None, NDArray[Any] | None]:
    """The tensors, the groups and the weights of a call. The library's shape points to the weights."""
    plain = groups is None and exactly is None and given["residual"] is None and len(taken) == 1
    tensors = _by_the_short_way(given, taken["out"], axis) if plain else None
    if tensors is not None and not positions:
        return tensors, None, None
    given["x"] = x = tensor(given["x"], "x")
    axes = channel_axes(as_axis(axis), x.ndim)
    group = grouping(groups, x.shape, axes)
    weights = positions.of(x, axes)
    if tensors is None:
        tensors = arrange(given, taken, axis, group is not None, exactly)
    if weights is not None:
        dense, weights = laid(weights, tensors.arrays["x"], axes)
        struct = structs.Shape.from_buffer_copy(tensors.fit.shape)
        struct.weights = ctypes.pointer(weights_struct(dense, positions.masked))
        tensors = tensors._replace(fit=tensors.fit._replace(shape=struct))
    return tensors, group, weights


def _by_the_short_way(given: dict[str, Any], out: Array | None, axis: Axis) -> CallTensors:
    """The tensors of a call that has only x, an output, and perhaps dy."""
    if "dy" in given:
        fit, dy, x, dx, _, _, _ = direct.backward(given["dy"], given["x"], axis, out)
        return CallTensors(fit, {"x": x, "dy": dy, "out": dx}, {})
    fit, x, y, _, _ = direct.forward(given["x"], axis, out)
    return CallTensors(fit, {"x": x, "out": y}, {})


def epilogue_of(
    function: ResolvedActivation,
    tensors: CallTensors,
    bits: NDArray[np.uint8] | None = None,
    from_output: bool = False,
) -> structs.Epilogue | None:
    """The epilogue of a call; None if it has neither activation nor tensors."""
    z, dz = tensors.address("residual"), tensors.address("residual_out")
    if function.kind == structs.Activation.IDENTITY and z is None and dz is None and bits is None and not from_output:
        return None
    struct: structs.Epilogue = sized(
        structs.Epilogue(
            0,
            function.kind,
            from_output,
            function.slope,
            function.low,
            function.high,
            z,
            tensors.strides.get("residual", 0),
            dz,
            tensors.strides.get("residual_out", 0),
            None if bits is None else address(bits),
        )
    )
    return struct


def with_rows(fit: Plan, group: Grouping | None, what: PerGroup) -> Plan:
    """The plan for arrays that have a row per group, if there are any."""
    rows = group.rows(what) if group is not None else 0
    return fit._replace(channel_shape=(rows, *fit.channel_shape), channels=rows * fit.channels) if rows else fit


def options_with(
    descriptors: dict[str, Any],
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    unbiased: bool = True,
    frozen: bool = False,
    param_code: int = 0,
) -> structs.Options:
    """Options that point to the given descriptors, by the names of bn_options."""
    options = make_options(eps, momentum, unbiased, frozen, param_code)
    for name, struct in descriptors.items():
        if struct is not None:
            setattr(options, name, ctypes.pointer(struct))
    return options
