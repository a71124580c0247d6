# SPDX-License-Identifier: Apache-2.0
"""Calls of a layer that has settings: they go through `batchnorm.functional`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from .._core.arrays import Array, address_of_any, of_layer, tensor
from .._core.layout import channel_axes
from .._core.options import flag
from .._core.weights import PositionWeights
from ..functional import extended
from ..functional.extended import Channels
from ..functional.extras import Extras
from ..functional.frozen import frozen_statistics
from ..functional.gradient import backward as function_of_backward
from ..functional.saved import Last, SavedStatistics
from ..settings.activations import resolve
from ..settings.groups import Conditional, Ghost, Segments, Split
from ..settings.running import Running
from ..settings.sources import Blend, Renorm, Updated
from .module import Module
from .parameters import four_of


def check(layer: Module) -> None:
    """An error if a setting is one that a call would refuse, as far as that can be seen without a batch."""
    resolve(layer.activation)
    for value, kinds, name in (
        (layer.running, (Running,), "running"),
        (layer.source, (Blend, Renorm, Updated), "source"),
        (layer.groups, (Ghost, Segments, Split, Conditional), "groups"),
    ):
        if value is not None and not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name} is of type {type(value).__name__}, expected {names}")
    flag(layer.frozen, "frozen")
    if layer.frozen and layer.running_mean is None:
        raise ValueError("frozen is True, but the layer has no running statistics to be frozen to")
    _policy(layer, _tracks(layer, layer.running_mean, layer.training))


def forward(
    layer: Module,
    x: ArrayLike,
    out: Array | None,
    residual: ArrayLike | None,
    positions: PositionWeights,
    training: bool | None = None,
) -> Array:
    """See BatchNorm.__call__()."""
    trains = layer.training if training is None else flag(training, "training")
    check(layer)
    gamma, beta, mean, var = four_of(layer.__dict__)
    array = tensor(of_layer(x, "x", layer.dtype), "x")
    channel_shape = tuple(array.shape[a] for a in channel_axes(layer.axis, array.ndim))
    if channel_shape != layer._channel_shape or array.dtype != layer.dtype:
        raise layer._mismatch(channel_shape, array.dtype)
    in_place = type(x) is ndarray and type(out) is ndarray and address_of_any(x) == address_of_any(out)
    extras = Extras(layer.activation, residual, *positions, groups=layer.groups)
    observer = layer._observer
    is_observed = observer is not None and not observer.is_settled
    seen = observer.look(array, positions) if is_observed else None  # before x may be overwritten
    of_batch = trains and not layer.frozen and observer is None
    channels = Channels(gamma, beta, mean, var)
    if of_batch or mean is None or is_observed:
        source = None if is_observed else layer.source
        y, saved = _train(layer, array, channels, extras._replace(source=source), trains, out)
    else:
        y, saved = _evaluate(layer, array, channels, extras, out)
    if is_observed:
        observer.take(seen)
    kept: Array | None = array
    if in_place:
        invertible = layer.activation is not None and resolve(layer.activation).has_inverse and residual is None
        kept = y if invertible else None
    layer._last = kept, saved, in_place
    return y


def _train(
    layer: Module, x: Array, channels: Channels, extras: Extras, trains: bool, out: Array | None
) -> tuple[Array, SavedStatistics]:
    """y from the batch's own statistics, or what a source makes of them."""
    tracks = _tracks(layer, channels.running_mean, trains)
    policy = _policy(layer, tracks)
    if not tracks and extras.source is None and policy.single_value != "running":
        channels = channels._replace(running_mean=None, running_var=None)
    y, saved = extended.forward_training(
        x,
        channels,
        extras._replace(running=policy),
        axis=layer.axis,
        eps=layer.eps,
        momentum=1.0 if layer.momentum is None else layer.momentum,
        unbiased=layer.unbiased,
        out=out,
    )
    if tracks:
        counts = policy.num_batches
        layer.num_batches_tracked = int(counts) if counts.ndim == 0 else counts
    return y, saved


def _evaluate(
    layer: Module, x: Array, channels: Channels, extras: Extras, out: Array | None
) -> tuple[Array, SavedStatistics]:
    """y from the running statistics."""
    gamma, beta, mean, var = channels
    y = extended.forward_inference(x, channels, extras, axis=layer.axis, eps=layer.eps, out=out)
    saved = frozen_statistics(mean, var, layer.eps, gamma=gamma, beta=beta, axis=layer.axis, **extras.frozen())
    saved._shape = x.shape
    return y, saved


def backward(layer: Module, last: Last, dy: ArrayLike, out: Array | None) -> Array:
    """See BatchNorm.backward(); there was a forward call."""
    x, saved, from_output = last
    dx, dgamma, dbeta, *dz = function_of_backward(dy, x, saved, out=out, from_output=from_output)
    layer.grad_gamma = None if saved.gamma is None else dgamma
    layer.grad_beta = None if saved.beta is None else dbeta
    layer.grad_residual = dz[0] if dz else None
    return dx


def _tracks(layer: Module, running_mean: Any, training: bool) -> bool:
    if layer._observer is not None:
        return False
    return training and not layer.frozen and layer.track_running_stats and running_mean is not None


def _policy(layer: Module, tracks: bool) -> Running:
    """The layer's Running with the layer's own count of batches."""
    given = layer.running or Running()
    if given.pure or given.num_batches is not None:
        raise ValueError("running is pure, or has num_batches, but a layer keeps and counts its own")
    average = given.average
    if layer.momentum is None:
        if average not in ("exponential", "cumulative"):
            raise ValueError(f"running has average {average!r}, but momentum is None, which is the cumulative average")
        average = "cumulative"
    if not tracks:
        # The running statistics are read, and stay as they are.
        return Running("exponential", given.single_value, given.nonfinite, pure=True)
    counts = np.array(layer.num_batches_tracked, np.int64)
    return Running(average, given.single_value, given.nonfinite, num_batches=counts)
