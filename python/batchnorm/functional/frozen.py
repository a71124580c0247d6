# SPDX-License-Identifier: Apache-2.0
"""Running statistics as backward() takes them, for the gradient of a layer in evaluation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from .._core.arrays import doubles, plain
from .._core.layout import Axis, as_axis
from .._core.weights import Masked, PositionWeights
from ..settings.activations import Activation, resolve
from ..settings.groups import Ghost, Groups, copied
from ..statistics.functions import inverse_std
from .extras import SavedExtras
from .saved import SavedCall, SavedStatistics


def frozen_statistics(
    running_mean: ArrayLike,
    running_var: ArrayLike,
    eps: float = 1e-5,
    *,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    axis: Axis | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> SavedStatistics:
    """The statistics that forward_inference() normalizes with, for backward().

    Parameters
    ----------
    running_mean, running_var : array_like, one element per channel
        As in forward_inference().
    eps : float, default 1e-5
        As in forward_inference().
    gamma, beta, axis
        As in forward_inference(); gamma and beta are copied. Without gamma, or axis, backward() takes the one that it
        is given, or none and 1. beta is needed with an activation.
    activation, residual, weights, lengths, masked, groups
        As in forward_inference(), if they were given there; backward() checks them. All but `residual` are copied.

    Returns
    -------
    SavedStatistics
        mean = running_mean and invstd = 1 / sqrt(running_var + eps), with `frozen` set.

    Raises
    ------
    TypeError
        An array is not of real numbers.
    ValueError
        The shapes differ, or `eps` is negative or not finite.
    """
    shape = np.shape(running_mean)
    mean = doubles(running_mean, "running_mean", shape)
    variance = doubles(running_var, "running_var", shape)
    invstd = inverse_std(np.ones(shape), variance, eps)
    axis = None if axis is None else as_axis(axis)
    affine = {name: _copy(value, name) for name, value in (("gamma", gamma), ("beta", beta))}
    positions = PositionWeights(_copy(weights, "weights"), _copy(lengths, "lengths"), masked)
    is_plain = activation is None and residual is None and groups is None and not positions
    saved = SavedStatistics(shape, True, axis, **affine) if is_plain else SavedCall(shape, True, axis, **affine)
    saved.mean[...], saved.invstd[...] = mean, invstd
    if isinstance(saved, SavedCall):
        function = resolve(activation)
        # Ghost batches are none in inference.
        groups = None if isinstance(groups, Ghost) else copied(groups)
        needed = None if function.kind == function.kind.IDENTITY else residual
        saved._extras = SavedExtras(function, residual is not None, needed, positions, groups=groups)
    return saved


def _copy(value: Any, name: str) -> Any:
    """A copy, which a caller cannot change. A list stays a list, as its dtype is not yet known."""
    if value is None or isinstance(value, (list, tuple)):
        return copy.deepcopy(value)
    array = value.copy() if type(value) is ndarray else np.array(plain(value, name))
    array.flags.writeable = False
    return array
