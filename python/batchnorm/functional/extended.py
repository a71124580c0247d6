# SPDX-License-Identifier: Apache-2.0
"""Forward calls with extras, which `forward` and `steps` pass on to here.

Activation and residual, weights, running policies, sources and groups go to the library as descriptors. The extras of
a forward call are kept for backward(), in a SavedCall.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arrange import CallTensors
from .._core.arrays import Array, Doubles, address, doubles, parameter, running
from .._core.held import held
from .._core.layout import Axis, Plan
from .._core.structs import Activation as Kind
from .._core.structs import Outcome, PerGroup
from .._core.weights import PositionWeights
from ..settings.activations import ResolvedActivation, resolve
from ..settings.groups import Ghost, Grouping, copied
from ..settings.running import Running, RunningStruct, running_struct
from ..settings.sources import Source, scratch
from ..settings.sources import struct_of as source_struct
from . import native
from .descriptors import arranged, epilogue_of, options_with, with_rows
from .extras import Extras, SavedExtras
from .saved import SavedCall, SavedStatistics


class Channels(NamedTuple):
    """gamma, beta and running statistics of a call, as a caller gives them."""

    gamma: Any = None
    beta: Any = None
    running_mean: Any = None
    running_var: Any = None


def forward_training(
    x: ArrayLike,
    channels: Channels,
    extras: Extras,
    *,
    axis: Axis,
    eps: float,
    momentum: float | None,
    unbiased: bool,
    out: Array | None,
) -> tuple[Array, SavedStatistics]:
    """See functional.forward_training()."""
    if extras.groups is not None:
        extras = extras._replace(groups=copied(extras.groups))
    positions, function = extras.positions().owned(), resolve(extras.activation)
    if extras.save_mask and not function.is_bitwise:
        raise ValueError(f"save_mask is True, but the gradient of {extras.activation!r} is more than a bit")
    tensors, group, weights = arranged(
        {"x": x, "residual": extras.residual}, {"out": out}, axis, positions, extras.groups
    )
    fit, x = tensors.fit.beside(*channels), tensors.arrays["x"]
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    gamma, beta = held(channels.gamma, "gamma", affine), held(channels.beta, "beta", affine)
    averages = _averages(channels, extras.running, with_rows(fit, group, PerGroup.RUNNING))
    policy = _policy(extras.running, averages, group)
    of_source = _scratch(extras.source, averages, fit, group)
    bits = np.zeros((x.size + 7) // 8, np.uint8) if extras.save_mask else None
    descriptors = {
        "running": None if policy is None else policy.struct,
        "source": None if of_source is None else source_struct(cast(Source, extras.source), of_source, x, axis),
        "groups": None if group is None else group.struct,
        "epilogue": epilogue_of(function, tensors, bits),
    }
    statistics = with_rows(fit, group, PerGroup.STATISTICS).channel_shape
    saved = SavedCall(statistics, False, axis, x.shape, fit.dtype, fit.param, gamma, beta)
    told = options_with(descriptors, eps, momentum, unbiased=unbiased, param_code=fit.param_code)
    x_address, y_address = tensors.address("x"), tensors.address("out")
    native.forward_training(fit, x_address, (gamma, beta), averages.addresses, y_address, saved._addresses(), told)
    if policy is not None:
        _take_outcome(saved, policy, averages)
    counted = PositionWeights() if weights is None else PositionWeights(weights, None, extras.masked)
    saved._extras = _kept(extras, function, counted, of_source, tensors, group, bits)
    return tensors.arrays["out"], saved


def forward_inference(
    x: ArrayLike, channels: Channels, extras: Extras, *, axis: Axis, eps: float, out: Array | None
) -> Array:
    """See functional.forward_inference()."""
    groups = None if isinstance(extras.groups, Ghost) else extras.groups
    tensors, group, _ = arranged({"x": x, "residual": extras.residual}, {"out": out}, axis, extras.positions(), groups)
    fit = tensors.fit.beside(*channels)
    affine, of_running = with_rows(fit, group, PerGroup.PARAMETERS), with_rows(fit, group, PerGroup.RUNNING)
    read = [
        parameter(value, name, of_running if name.startswith("running") else affine)
        for name, value in channels._asdict().items()
    ]
    descriptors = {
        "groups": None if group is None else group.struct,
        "epilogue": epilogue_of(resolve(extras.activation), tensors),
    }
    told = options_with(descriptors, eps, param_code=fit.param_code)
    (_, gamma), (_, beta), (_, mean), (_, var) = read
    x_address, y_address = tensors.address("x"), tensors.address("out")
    native.forward_inference(fit, x_address, (gamma, beta), (mean, var), y_address, (None, None), told)
    return tensors.arrays["out"]


def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    invstd: ArrayLike,
    channels: Channels,
    extras: Extras,
    *,
    axis: Axis,
    out: Array | None,
) -> Array:
    """See functional.steps.normalize()."""
    given = {"x": x, "residual": extras.residual}
    tensors, group, _ = arranged(given, {"out": out}, axis, extras.positions(), extras.groups)
    fit = tensors.fit.beside(*channels)
    shape = with_rows(fit, group, PerGroup.STATISTICS).channel_shape
    statistics = [doubles(value, name, shape) for name, value in (("mean", mean), ("invstd", invstd))]
    affine = with_rows(fit, group, PerGroup.PARAMETERS)
    _, gamma = parameter(channels.gamma, "gamma", affine)
    _, beta = parameter(channels.beta, "beta", affine)
    descriptors = {
        "groups": None if group is None else group.struct,
        "epilogue": epilogue_of(resolve(extras.activation), tensors),
    }
    told = options_with(descriptors, param_code=fit.param_code)
    x_address, y_address = tensors.address("x"), tensors.address("out")
    native.normalize(fit, x_address, (gamma, beta), (address(statistics[0]), address(statistics[1])), y_address, told)
    return tensors.arrays["out"]


class Averages(NamedTuple):
    """The running statistics of a call."""

    addresses: tuple[int | None, int | None]
    new: list[Array]  # which take what a pure call would have updated
    read: tuple[Any, ...] = ()  # has to live as long as the call


def _averages(channels: Channels, policy: Running | None, fit: Plan) -> Averages:
    """`fit` has the rows of running statistics."""
    if policy is not None and not isinstance(policy, Running):
        raise TypeError(f"running is of type {type(policy).__name__}, expected Running")
    if policy is None or not policy.pure:
        mean, var = (
            running(channels.running_mean, "running_mean", fit),
            running(channels.running_var, "running_var", fit),
        )
        return Averages((mean, var), [])
    values = {"running_mean": channels.running_mean, "running_var": channels.running_var}
    read = [parameter(value, name, fit) for name, value in values.items()]
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == 1:
        raise ValueError(f"{missing[0]} is None, but {' and '.join(values)} go together: both or neither")
    (mean_array, mean), (var_array, var) = read
    new = [] if missing else [np.empty(fit.channel_shape, fit.param) for _ in values]
    return Averages((mean, var), new, (mean_array, var_array))


def _policy(policy: Running | None, averages: Averages, group: Grouping | None) -> RunningStruct | None:
    if policy is None:
        return None
    rows, statistics = (group.rows(what) if group else 0 for what in (PerGroup.RUNNING, PerGroup.STATISTICS))
    return running_struct(policy, rows or 1, statistics or 1, *(averages.new or (None, None)))


def _take_outcome(saved: SavedCall, policy: RunningStruct, averages: Averages) -> None:
    """Adds the outcome of the batch, and running statistics that were not updated in place."""
    saved._outcomes = policy.outcome
    saved._frozen = bool((policy.outcome == Outcome.RUNNING).all())
    saved.num_batches = policy.new_num_batches
    if averages.new:
        saved.running_mean, saved.running_var = averages.new


def _scratch(source: Source | None, averages: Averages, fit: Plan, group: Grouping | None) -> Doubles | None:
    """Memory for what the library saves of a source for backward()."""
    if source is None:
        return None
    for name, found in zip(("running_mean", "running_var"), averages.addresses):
        if found is None:
            raise ValueError(f"{name} is None, but the source {source!r} needs it")
    return scratch((group.rows(PerGroup.STATISTICS) if group else 0) or 1, fit.channels)


def _kept(
    extras: Extras,
    function: ResolvedActivation,
    positions: PositionWeights,
    of_source: Doubles | None,
    tensors: CallTensors,
    group: Grouping | None,
    bits: NDArray[np.uint8] | None,
) -> SavedExtras:
    """The extras that backward() has to know."""
    # The gradient of the identity needs no residual, and neither does one whose bits are known.
    is_needed = extras.residual is not None and bits is None and function.kind != Kind.IDENTITY
    if bits is not None:
        bits.flags.writeable = False
    return SavedExtras(
        activation=function,
        has_residual=extras.residual is not None,
        residual=tensors.arrays["residual"] if is_needed else None,
        positions=positions,
        source=extras.source,
        of_source=of_source,
        groups=extras.groups,
        rows=group.rows(PerGroup.PARAMETERS) if group else 0,
        single_value="error" if extras.running is None else extras.running.single_value,
        bits=bits,
        order=() if bits is None else tensors.order(),
    )
