# SPDX-License-Identifier: Apache-2.0
"""A layer's arrays and settings as a framework has them, if it has words for all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import plain
from .._core.options import number
from .._core.rounding import cast, rounded
from ..layers.layer import BatchNorm
from . import spreads
from .convention import AFFINE, ARRAYS, FACTOR, RUNNING, Convention


def settings_of(layer: BatchNorm, convention: Convention) -> dict[str, Any]:
    """Settings but for the flags, if the framework has words for all of them."""
    framework = convention.framework
    for name in ("activation", "running", "source", "groups", "frozen"):
        value = getattr(layer, name)
        if value and value != "identity":
            raise ValueError(f"{name} is {value!r}, which a {framework} layer does not have")
    if convention.takes_axis:
        if isinstance(layer.axis, tuple) and not convention.takes_axes:
            raise ValueError(f"axis is {layer.axis}, expected one axis, as a {framework} layer has")
    elif layer.axis != convention.axis:
        raise ValueError(f"axis is {layer.axis}, expected {convention.axis}, the axis of every {framework} layer")
    eps, momentum = number(layer.eps, "eps"), layer.momentum
    if convention.spread == "outside":
        eps = convention.eps  # it is no setting there
    if not eps and not convention.takes_zero_eps:
        raise ValueError(f"eps is 0, expected more than 0, as a {framework} layer has")
    if momentum is not None:
        momentum = _momentum(number(momentum, "momentum"), convention)
    elif not convention.takes_cumulative:
        raise ValueError(f"momentum is None, the cumulative average, which a {framework} layer does not have")
    settings: dict[str, Any] = {"num_features": layer.num_features} if convention.takes_num_features else {}
    settings.update({"axis": layer.axis} if convention.takes_axis else {})
    return {**settings, convention.momentum_names[0]: momentum, convention.eps_name: eps}


def _momentum(weight: float, convention: Convention) -> float:
    """The weight of the new batch in the framework's sense."""
    if convention.has_factor and not weight:
        raise ValueError(f"momentum is 0, which would be a cumulative average of a {convention.framework} layer")
    if convention.sense != "window":
        return 1.0 - weight if convention.sense == "old" else weight
    window = round(1 / weight) if weight else 0
    if not window or abs(window * weight - 1) > 1e-9:
        raise ValueError(f"momentum is {weight:g}, expected 1 / n: {convention.framework} has a window of n batches")
    return window


def as_kept(variance: NDArray[Any], layer: BatchNorm, convention: Convention, factor: float) -> NDArray[Any]:
    """The running variance as the framework keeps it."""
    if convention.spread == "variance":
        return _times(variance, factor, "running_var")
    eps = number(layer.eps, "eps")
    values = variance.astype(np.float64)
    if convention.spread == "inverse":
        values = spreads.from_variance(values * factor, "inverse", eps, eps, "running_var")
    else:
        values = spreads.from_variance(values, "outside", eps, convention.eps, "running_var") * factor
    return rounded(values, variance.dtype, "running_var")


def sums(arrays: dict[str, NDArray[Any]], layer: BatchNorm) -> dict[str, NDArray[Any]]:
    """Means and variances times the weight of all batches so far, which is 1 / momentum after many of them."""
    factor = cast(np.array([1 / number(layer.momentum, "momentum")]), layer.param_dtype)
    sums: dict[str, NDArray[Any]] = {FACTOR: factor}
    for name in RUNNING:
        sums[name] = rounded(arrays[name].astype(np.float64) * float(factor[0]), layer.param_dtype, name)
    return sums


def arrays_of(layer: BatchNorm, convention: Convention) -> dict[str, NDArray[Any]]:
    """Copies of the arrays that a layer of the framework has; no call may have looked at ours yet."""
    given = {name: getattr(layer, name) for name in ARRAYS if getattr(layer, name) is not None}
    shape = layer._channel_shape
    for name, asking in convention.needed(given).items():
        if name == FACTOR:
            continue
        if name not in given and not asking and name in AFFINE:
            given[name] = np.full(shape, name == "gamma", layer.param_dtype)
        elif name not in given:
            beside = f"beside {asking}" if asking else "in every layer"
            raise ValueError(f"{name} is None, which {convention.framework} has {beside}")
    arrays = {}
    for name in ARRAYS:
        if name in given:
            array = plain(given[name], name)
            if array.dtype != layer.param_dtype:
                raise TypeError(f"{name} has dtype {array.dtype}, expected {layer.param_dtype}")
            if array.shape not in (shape, (math.prod(shape),)):
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}: one element per channel")
            arrays[name] = array.reshape(shape).copy()
    return arrays


def _times(array: NDArray[Any], factor: float, key: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        result: NDArray[Any] = (array.astype(np.float64) * factor).astype(array.dtype)
    if (np.isinf(result) & ~np.isinf(array)).any():
        raise ValueError(f"{key} times {factor:g}, which makes it unbiased, is beyond {array.dtype}")
    return result
