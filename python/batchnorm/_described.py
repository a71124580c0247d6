# SPDX-License-Identifier: Apache-2.0
"""The layer's calls where there is more to say than `functional` passes on by itself.

Activation and residual, weights, running policies, sources and groups go to the library as descriptors, which are made
here. What a forward call was told is kept for backward(), in a SavedCall.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _c_structs
from ._arrays import Array, address, doubles, parameter, running, tensor
from ._c_api import lib, raise_error
from ._c_structs import Outcome, PerGroup
from ._held import held
from ._layout import Axis, Plan, as_axis, channel_axes
from ._options import make_options
from ._together import Together, by_the_short_way, together
from ._weights import Counted, laid
from ._weights import struct_of as weights_struct
from .activations import Activation, Chosen, chosen
from .groups import Ghost, Grouping, Groups, copied, grouping
from .policies import Running, kept, sized
from .saved import SavedCall, SavedStatistics, Told
from .sources import Source, room
from .sources import struct_of as source_struct


def forward_training(
    x: ArrayLike,
    parameters: dict[str, Any],
    axis: Axis,
    eps: float,
    momentum: float | None,
    unbiased: bool,
    out: Array | None,
    activation: Activation | None,
    residual: ArrayLike | None,
    save_mask: bool,
    counted: Counted,
    policy: Running | None,
    source: Source | None,
    groups: Groups | None,
) -> tuple[Array, SavedStatistics]:
    """See functional.forward_training(); `parameters` are gamma, beta, running_mean and running_var by name."""
    groups, counted = copied(groups), counted.owned()
    function = chosen(activation)
    if save_mask and not function.is_bitwise:
        raise ValueError(f"save_mask is True, but the gradient of {activation!r} is more than a bit")
    tensors, group, weights = arranged({"x": x, "residual": residual}, {"out": out}, axis, counted, groups)
    fit, x = tensors.fit.beside(*parameters.values()), tensors.arrays["x"]
    statistics = group.rows(PerGroup.STATISTICS) if group else 0

    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    gamma, beta = (held(parameters[name], name, affine) for name in ("gamma", "beta"))
    old = {name: parameters[name] for name in ("running_mean", "running_var")}
    of_running = with_rows(fit, group, PerGroup.RUNNING)
    if policy is not None and not isinstance(policy, Running):
        raise TypeError(f"running is of type {type(policy).__name__}, expected Running")
    pure = policy is not None and policy.pure
    new = []
    if pure:
        # Read only: arrays of the caller's, or copies, which have to live as long as the call.
        read = [parameter(value, name, of_running) for name, value in old.items()]
        mean_address, var_address = (found for _, found in read)
        new = [np.empty(of_running.channel_shape, fit.param) for value, _ in read if value is not None]
        _both_or_neither(old)
    else:
        mean_address, var_address = (running(value, name, of_running) for name, value in old.items())
    shape = (statistics, *fit.channel_shape) if statistics else fit.channel_shape
    saved = SavedCall(shape, False, axis, x.shape, fit.dtype, fit.param, gamma, beta)
    room_of_source = None
    options = make_options(eps, momentum, unbiased, False, fit.param_code)
    if policy is not None:
        rows = group.rows(PerGroup.RUNNING) if group else 0
        running_struct = kept(policy, rows or 1, statistics or 1, *(new or (None, None)))
        options.running = ctypes.pointer(running_struct.struct)
    if source is not None:
        if mean_address is None or var_address is None:
            missing = "running_mean" if mean_address is None else "running_var"
            raise ValueError(f"{missing} is None, but the source {source!r} needs it")
        room_of_source = room(statistics or 1, fit.channels)
        options.source = ctypes.pointer(source_struct(source, room_of_source, x, axis))
    if group is not None:
        options.groups = ctypes.pointer(group.struct)
    bits = np.zeros((x.size + 7) // 8, np.uint8) if save_mask else None
    epilogue = epilogue_of(function, tensors, bits)
    if epilogue is not None:
        options.epilogue = ctypes.pointer(epilogue)
    status = lib.bn_forward_training(
        fit.shape,
        fit.code,
        tensors.address("x"),
        gamma,
        beta,
        mean_address,
        var_address,
        tensors.address("out"),
        *saved._addresses(),
        options,
    )
    if status:
        raise_error(status)
    if policy is not None:
        saved.num_batches = running_struct.num_batches if pure else None
        saved.running_mean, saved.running_var = new or (None, None)
        saved._outcomes = running_struct.outcome
        saved._frozen = bool((saved._outcomes == Outcome.RUNNING).all())
    saved._told = Told(
        activation=function,
        has_residual=residual is not None,
        # The identity's gradient and a mask's need neither of the two.
        residual=tensors.arrays["residual"] if residual is not None and _needs_u(function, bits) else None,
        counted=Counted(weights, None, counted.masked) if weights is not None else Counted(),
        source=source,
        of_source=room_of_source,
        groups=groups,
        rows=group.rows(PerGroup.PARAMETERS) if group else 0,
        single_value="error" if policy is None else policy.single_value,
        bits=bits,
        order=() if bits is None else tensors.order(),
    )
    if bits is not None:
        bits.flags.writeable = False
    return tensors.arrays["out"], saved


def forward_inference(
    x: ArrayLike,
    parameters: dict[str, Any],
    axis: Axis,
    eps: float,
    out: Array | None,
    activation: Activation | None,
    residual: ArrayLike | None,
    counted: Counted,
    groups: Groups | None,
) -> Array:
    """See functional.forward_inference()."""
    if isinstance(groups, Ghost):
        groups = None
    tensors, group, _ = arranged({"x": x, "residual": residual}, {"out": out}, axis, counted, groups)
    fit = tensors.fit.beside(*parameters.values())
    affine, of_running = with_rows(fit, group, PerGroup.PARAMETERS), with_rows(fit, group, PerGroup.RUNNING)
    read = {
        name: parameter(value, name, of_running if name.startswith("running") else affine)
        for name, value in parameters.items()
    }
    options = make_options(eps, param_code=fit.param_code)
    if group is not None:
        options.groups = ctypes.pointer(group.struct)
    epilogue = epilogue_of(chosen(activation), tensors)
    if epilogue is not None:
        options.epilogue = ctypes.pointer(epilogue)
    status = lib.bn_forward_inference(
        fit.shape,
        fit.code,
        tensors.address("x"),
        *(found for _, found in read.values()),
        tensors.address("out"),
        None,
        None,
        options,
    )
    if status:
        raise_error(status)
    return tensors.arrays["out"]


def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    axis: Axis,
    out: Array | None,
    activation: Activation | None,
    residual: ArrayLike | None,
    counted: Counted,
) -> Array:
    """See steps.normalize()."""
    tensors, _, _ = arranged({"x": x, "residual": residual}, {"out": out}, axis, counted, None)
    fit = tensors.fit.beside(gamma, beta)
    statistics = [doubles(value, name, fit.channel_shape) for name, value in (("mean", mean), ("invstd", invstd))]
    gamma, gamma_address = parameter(gamma, "gamma", fit)
    beta, beta_address = parameter(beta, "beta", fit)
    options = make_options(param_code=fit.param_code)
    epilogue = epilogue_of(chosen(activation), tensors)
    if epilogue is not None:
        options.epilogue = ctypes.pointer(epilogue)
    status = lib.bn_normalize(
        fit.shape,
        fit.code,
        tensors.address("x"),
        gamma_address,
        beta_address,
        *map(address, statistics),
        tensors.address("out"),
        options,
    )
    if status:
        raise_error(status)
    return tensors.arrays["out"]


def arranged(
    given: dict[str, Any],
    taken: dict[str, Array | None],
    axis: Axis,
    counted: Counted,
    groups: Groups | None,
    exactly: tuple[int, ...] | None = None,
) -> tuple[Together, Grouping | None, NDArray[Any] | None]:
    """Tensors, groups, and the weights, which the shape that the library is given knows; as positions of x, too."""
    plain = groups is None and exactly is None and given["residual"] is None and len(taken) == 1
    tensors = by_the_short_way(given, taken["out"], axis) if plain else None
    if tensors is not None and not counted:
        return tensors, None, None
    given["x"] = x = tensor(given["x"], "x")
    axes = channel_axes(as_axis(axis), x.ndim)
    group = grouping(groups, x.shape, axes)
    weights = counted.of(x, axes)
    if tensors is None:
        tensors = together(given, taken, axis, group is not None, exactly)
    if weights is not None:
        dense, weights = laid(weights, tensors.arrays["x"], axes)
        struct = _c_structs.Shape.from_buffer_copy(tensors.fit.shape)
        struct.weights = ctypes.pointer(weights_struct(dense, counted.masked))
        tensors = tensors._replace(fit=tensors.fit._replace(shape=struct))
    return tensors, group, weights


def epilogue_of(
    function: Chosen,
    tensors: Together,
    bits: NDArray[np.uint8] | None = None,
    from_output: bool = False,
) -> _c_structs.Epilogue | None:
    """An epilogue with the tensors that there are; None if it would say nothing."""
    z, dz = tensors.address("residual"), tensors.address("residual_out")
    if (
        function.kind == _c_structs.Activation.IDENTITY
        and z is None
        and dz is None
        and bits is None
        and not from_output
    ):
        return None
    struct: _c_structs.Epilogue = sized(
        _c_structs.Epilogue(
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


def _needs_u(function: Chosen, bits: NDArray[np.uint8] | None) -> bool:
    return bits is None and function.kind != _c_structs.Activation.IDENTITY


def _both_or_neither(values: dict[str, Any]) -> None:
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == 1:
        raise ValueError(f"{missing[0]} is None, but {' and '.join(values)} go together: both or neither")
