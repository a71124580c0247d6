# SPDX-License-Identifier: Apache-2.0
"""The calls of a layer that has more to say than its own lines pass on: they go through `functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from ._arrays import Array, address_of_any, of_layer, tensor
from ._layout import channel_axes
from ._options import flag
from ._parameters import four_of
from ._weights import Counted
from .activations import chosen
from .functional import backward as function_of_backward
from .functional import forward_inference, forward_training
from .groups import Conditional, Ghost, Segments, Split
from .policies import Running
from .saved import Last, frozen_statistics
from .sources import Blend, Renorm, Updated

if TYPE_CHECKING:
    from .layer import BatchNorm


class Setting:
    """An attribute of which the layer's own lines know nothing: with any that is set, they are passed by."""

    def __init__(self, default: Any = None) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = "_" + name

    def __get__(self, layer: Any, owner: type) -> Any:
        return self if layer is None else layer.__dict__.get(self.key, self.default)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.key] = value
        describe(layer)


def describe(layer: Any) -> None:
    """Whether the layer has any setting, which its own lines would pass by."""
    keys = "_activation", "_running", "_source", "_groups", "_frozen", "__observer"
    set_ones = [value for value in map(layer.__dict__.get, keys) if value is not None and value is not False]
    layer._is_described = bool(set_ones)


def check(layer: BatchNorm) -> None:
    """Whether the settings are ones that a call would take, as far as they can be looked at without a batch."""
    chosen(layer.activation)
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
    layer: BatchNorm,
    x: ArrayLike,
    out: Array | None,
    residual: ArrayLike | None,
    counted: Counted,
    training: bool | None = None,
) -> Array:
    """See BatchNorm.__call__()."""
    trains = layer.training if training is None else flag(training, "training")
    check(layer)
    gamma, beta, *both = four_of(layer.__dict__)
    array = tensor(of_layer(x, "x", layer.dtype), "x")
    channel_shape = tuple(array.shape[a] for a in channel_axes(layer.axis, array.ndim))
    if channel_shape != layer._channel_shape or array.dtype != layer.dtype:
        raise layer._mismatch(channel_shape, array.dtype)
    in_place = type(x) is ndarray and type(out) is ndarray and address_of_any(x) == address_of_any(out)
    settings: dict[str, Any] = {"activation": layer.activation, "residual": residual, "groups": layer.groups}
    settings.update(weights=counted.weights, lengths=counted.lengths, masked=counted.masked)
    running: dict[str, Any] = {"running_mean": both[0], "running_var": both[1]}
    observer = layer._observer
    is_observed = observer is not None and not observer.is_settled
    seen = observer.look(array, counted) if is_observed else None  # before x may be overwritten
    of_batch = trains and not layer.frozen and observer is None
    if of_batch or both[0] is None or is_observed:
        source = None if is_observed else layer.source
        tracks = _tracks(layer, both[0], trains)
        settings.update(running=_policy(layer, tracks), source=source, unbiased=layer.unbiased)
        if not tracks and source is None and settings["running"].single_value != "running":
            running = {}
        momentum = 1.0 if layer.momentum is None else layer.momentum
        y, saved = forward_training(
            array,
            gamma,
            beta,
            **running,
            axis=layer.axis,
            eps=layer.eps,
            momentum=momentum,
            out=out,
            **settings,
        )
        if tracks:
            counts = settings["running"].num_batches
            layer.num_batches_tracked = int(counts) if counts.ndim == 0 else counts
    else:
        y = forward_inference(array, gamma, beta, **running, axis=layer.axis, eps=layer.eps, out=out, **settings)
        of_parameters = {"gamma": gamma, "beta": beta, "axis": layer.axis}
        saved = frozen_statistics(**running, eps=layer.eps, **of_parameters, **settings)
        saved._shape = array.shape
    if is_observed:
        observer.take(seen)
    kept: Array | None = array
    if in_place:
        invertible = layer.activation is not None and chosen(layer.activation).has_inverse and residual is None
        kept = y if invertible else None
    layer._last = kept, saved, in_place
    return y


def backward(layer: BatchNorm, last: Last, dy: ArrayLike, out: Array | None) -> Array:
    """See BatchNorm.backward(); there was a forward call."""
    x, saved, from_output = last
    dx, dgamma, dbeta, *dz = function_of_backward(dy, x, saved, out=out, from_output=from_output)
    layer.grad_gamma = None if saved.gamma is None else dgamma
    layer.grad_beta = None if saved.beta is None else dbeta
    layer.grad_residual = dz[0] if dz else None
    return dx


def _tracks(layer: BatchNorm, running_mean: Any, training: bool) -> bool:
    if layer._observer is not None:
        return False
    return training and not layer.frozen and layer.track_running_stats and running_mean is not None


def _policy(layer: BatchNorm, tracks: bool) -> Running:
    """The layer's policy with the layer's own count of batches."""
    given = layer.running or Running()
    if given.pure or given.num_batches is not None:
        raise ValueError("running is pure, or has num_batches, but a layer keeps and counts its own")
    average = given.average
    if layer.momentum is None:
        if average not in ("exponential", "cumulative"):
            raise ValueError(f"running has average {average!r}, but momentum is None, which is the cumulative average")
        average = "cumulative"
    if not tracks:
        # Whatever is read stays as it is.
        return Running("exponential", given.single_value, given.nonfinite, pure=True)
    counts = np.array(layer.num_batches_tracked, np.int64)
    return Running(average, given.single_value, given.nonfinite, num_batches=counts)
