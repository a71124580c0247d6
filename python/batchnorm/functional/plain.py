# SPDX-License-Identifier: Apache-2.0
"""Forward calls that normalize, scale and shift, and do nothing else, by ctypes: for arrays that no built-in reads."""

from __future__ import annotations

from numpy.typing import ArrayLike

from .._core import direct
from .._core.arrays import Array, running
from .._core.held import held, read_only
from .._core.layout import Axis
from .._core.options import options
from . import native
from .extended import Channels
from .saved import SavedStatistics


def forward_training(
    x: ArrayLike,
    channels: Channels,
    *,
    axis: Axis,
    eps: float,
    momentum: float | None,
    unbiased: bool,
    out: Array | None,
) -> tuple[Array, SavedStatistics]:
    """See functional.forward_training()."""
    fit, x, y, x_address, y_address = direct.forward(x, axis, out)
    fit = fit.beside(*channels)
    parameters = held(channels.gamma, "gamma", fit), held(channels.beta, "beta", fit)
    saved = SavedStatistics(fit.channel_shape, False, axis, x.shape, fit.dtype, fit.param, *parameters)
    moved = running(channels.running_mean, "running_mean", fit), running(channels.running_var, "running_var", fit)
    told = options(eps, momentum, unbiased, False, fit.param_code)
    native.forward_training(fit, x_address, parameters, moved, y_address, saved._addresses(), told)
    return y, saved


def forward_inference(x: ArrayLike, channels: Channels, *, axis: Axis, eps: float, out: Array | None) -> Array:
    """See functional.forward_inference()."""
    fit, x, y, x_address, y_address = direct.forward(x, axis, out)
    fit = fit.beside(*channels)
    read = [read_only(value, name, fit) for name, value in channels._asdict().items()]  # which live until the end
    (_, gamma), (_, beta), (_, mean), (_, var) = read
    if mean is None or var is None:
        raise ValueError(f"{'running_mean' if mean is None else 'running_var'} is None, expected an array")
    told = options(eps, param_code=fit.param_code)
    native.forward_inference(fit, x_address, (gamma, beta), (mean, var), y_address, (None, None), told)
    return y
