# SPDX-License-Identifier: Apache-2.0
"""The formula behind the operator BatchNormalization of ONNX, and what all its versions ask of their inputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.arrays import tensor
from .._core.layout import BITS, NAMES, parameter_dtype
from .._core.options import number
from .._core.rounding import cast
from ..functional.steps import normalize
from ..statistics.functions import inverse_std, moments, update_running

Array = NDArray[Any]


class Results(NamedTuple):
    """The results of a call in training; the last two are float64."""

    y: Array
    running_mean: Array
    running_var: Array
    mean: Array
    var: Array


def computed(
    given: dict[str, Array], epsilon: float, momentum: float, training: bool, spatial: bool
) -> Array | Results:
    """Y in inference, everything in training. Statistics go to the library as float64, which holds all their types."""
    x, scale, shift, old_mean, old_var = given.values()
    names = list(given)
    epsilon, momentum = number(epsilon, "epsilon"), number(momentum, "momentum")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon is {epsilon}, expected a finite number of at least 0")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}, expected a number from 0 to 1")
    check_same_dtype(given, "B", "scale")
    check_same_dtype(given, names[4], names[3])
    shape, dtype = x.shape, x.dtype
    x = x[:, None] if x.ndim == 1 else x
    axis = 1 if spatial else tuple(range(1, x.ndim))
    channels = x.shape[1:2] if spatial else x.shape[1:]
    for name in names[1:]:
        if given[name].shape != channels:
            raise ValueError(f"{name} has shape {given[name].shape}, expected {channels}, as X has shape {shape}")
    if 0 in channels:
        raise ValueError(f"X has shape {shape}, expected at least one channel")

    count, mean, m2 = np.ones(channels), old_mean.astype(np.float64), old_var.astype(np.float64)
    if training:
        count, mean, m2 = moments(x, axis)
    invstd = inverse_std(count, m2, epsilon)
    # Only a scale of float64 is more than parameters beside an x of other types hold: then x, too, becomes float64.
    wide = x.astype(np.float64, copy=False) if scale.dtype == np.float64 else x
    scale, shift = (each.astype(parameter_dtype(wide.dtype)) for each in (scale, shift))
    y = normalize(wide, mean, invstd, scale, shift, axis=axis)
    y = (y if y.dtype == dtype else cast(y, dtype)).reshape(shape)
    if not training:
        return y
    running_mean, running_var = old_mean.copy(), old_var.copy()
    update_running(running_mean, running_var, count, mean, m2, decay=momentum, unbiased=False)
    return Results(y, running_mean, running_var, mean, m2 / np.maximum(count, 1))


def inputs(*values: ArrayLike, prefix: str = "") -> dict[str, Array]:
    """The inputs by name, as arrays of types that ONNX knows."""
    names = "X", "scale", "B", prefix + "mean", prefix + "var"
    given = {name: tensor(value, name) for name, value in zip(names, values)}
    for name, array in given.items():
        if array.dtype == BITS:
            raise TypeError(f"{name} has dtype {array.dtype}, expected {NAMES}")
    return given


def check_same_dtype(given: dict[str, Array], name: str, other: str) -> None:
    if given[name].dtype != given[other].dtype:
        raise TypeError(f"{name} has dtype {given[name].dtype}, expected {given[other].dtype}, the dtype of {other}")


def choice(value: Any, name: str, choices: tuple[int, int]) -> int:
    expected = f"{name} is {value!r}, expected {choices[0]} or {choices[1]}"
    if not isinstance(value, (int, np.integer, np.bool_)):
        raise TypeError(expected)
    if value not in choices:
        raise ValueError(expected)
    return int(value)
