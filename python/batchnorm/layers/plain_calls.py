# SPDX-License-Identifier: Apache-2.0
"""The calls of a layer that does nothing but normalize, scale and shift: by a built-in function, or by ctypes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from .._core import built_ins, direct
from .._core.arrays import Array, address, of_layer, running
from .._core.held import held, read_only
from .._core.layout import Plan, code_of
from .._core.makers import NUMPY, TORCH
from .._core.options import flag, make_options, options
from .._core.records import HAS, HAS_BETA, HAS_GAMMA, IS_IN_PLACE
from ..functional import native
from ..functional.gradient import by_record
from ..functional.saved import SavedStatistics
from .module import Module
from .parameters import four_of


def _maker(layer: Module, x: Any, out: Any) -> Any:
    """That of x, if it is of the layer's dtype and no gradient is recorded."""
    if type(x) is ndarray:
        return NUMPY if x.dtype is layer._dtype else None
    maker = TORCH.get(type(x))
    return maker if maker is not None and maker.is_of(x, layer._dtype) and maker.admits(x, out) else None


def forward_by_built_in(layer: Module, x: Any, out: Any, training: Any) -> Any:
    """y, or None if no built-in function takes the arrays: then nothing was written."""
    built_in, maker, state = built_ins.forward_training, _maker(layer, x, out), layer.__dict__
    if built_in is None or maker is None:
        return None
    gamma, beta, mean, var = four_of(state)
    trains = state["training"] if training is None else training
    if not (trains is True or trains is False):
        return None
    of_batch = trains or mean is None
    tracks = trains and state["track_running_stats"]
    if of_batch and not tracks:
        mean = var = None
    if gamma is None and beta is None and mean is None:
        return None  # nothing that is handed over has the layer's number of channels
    y = maker.empty_like(x) if out is None else out
    if of_batch:
        count, weight = state["num_batches_tracked"] + 1, state["momentum"]
        if weight is None:
            weight = 1.0 / count
        record = built_in(x, gamma, beta, mean, var, y, state["_axis"], weight, state["eps"], state["unbiased"])
        if tracks and record is not None and 0 not in x.shape:
            state["num_batches_tracked"] = count
    else:
        record = built_ins.forward_inference(x, gamma, beta, mean, var, y, state["_axis"], state["eps"], True)
    if record is None:
        return None
    if maker is not NUMPY:
        maker.written(out, mean, var)
    state["_last"] = None if record[HAS] & IS_IN_PLACE else x, SavedStatistics._of(record), False
    return y


def forward(layer: Module, x: ArrayLike, out: Array | None, training: Any) -> Array:
    """y by ctypes, or the error."""
    x = of_layer(x, "x", layer._dtype)
    fit, x, y, x_address, y_address = direct.forward(x, layer._axis, out)
    fit = _of_layer(layer, fit)
    gamma, beta, mean, var = four_of(layer.__dict__)
    trains = layer.training if training is None else flag(training, "training")
    saved = SavedStatistics(
        layer._channel_shape,
        not (trains or mean is None),
        layer._axis,
        x.shape,
        layer._dtype,
        layer._param_dtype,
        held(gamma, "gamma", fit),
        held(beta, "beta", fit),
    )
    if saved.frozen:
        _evaluate(layer, fit, saved, x_address, y_address, mean, var)
    else:
        _train(layer, fit, saved, x_address, y_address, trains and layer.track_running_stats, mean, var)
    layer.__dict__["_last"] = None if x_address == y_address and not fit.empty else x, saved, False
    return y


def _of_layer(layer: Module, fit: Plan) -> Plan:
    """The plan of a call with the layer's parameters, if its x is one for this layer."""
    if fit.channel_shape != layer._channel_shape or fit.code != code_of(layer._dtype):
        raise layer._mismatch(fit.channel_shape, fit.dtype)
    if fit.param == layer._param_dtype:
        return fit
    return fit._replace(param=layer._param_dtype, param_code=fit.code)


def _train(
    layer: Module,
    fit: Plan,
    saved: SavedStatistics,
    x_address: int,
    y_address: int,
    tracks: bool,
    mean: Any,
    var: Any,
) -> None:
    """y from the batch's own statistics, which move the running ones if the layer tracks them."""
    count = layer.num_batches_tracked + 1 if tracks else 0
    if layer.momentum is None:  # a weight of its own for every batch: not worth keeping
        told = make_options(layer.eps, 1.0 / (layer.num_batches_tracked + 1), layer.unbiased, False, fit.param_code)
    else:
        told = options(layer.eps, layer.momentum, layer.unbiased, False, fit.param_code)
    moved = (running(mean, "running_mean", fit), running(var, "running_var", fit)) if tracks else (None, None)
    parameters = saved._gamma, saved._beta
    native.forward_training(fit, x_address, parameters, moved, y_address, saved._addresses(), told)
    if tracks and not fit.empty:
        layer.__dict__["num_batches_tracked"] = count


def _evaluate(
    layer: Module, fit: Plan, saved: SavedStatistics, x_address: int, y_address: int, mean: Any, var: Any
) -> None:
    """y from the running statistics."""
    mean, of_mean = read_only(mean, "running_mean", fit)
    var, of_var = read_only(var, "running_var", fit)
    told, parameters = options(layer.eps, param_code=fit.param_code), (saved._gamma, saved._beta)
    native.forward_inference(fit, x_address, parameters, (of_mean, of_var), y_address, saved._addresses(), told)


def backward_by_built_in(layer: Module, dy: Any, x: Any, saved: SavedStatistics, out: Any) -> Any:
    """dx, or None if no built-in function takes the arrays."""
    # Another thread may unpack it meanwhile.
    record = saved._record if type(saved) is SavedStatistics else None
    if record is None:
        return None
    found = by_record(dy, x, record, out, NUMPY)
    if found is None:
        return None
    dx, grad_gamma, grad_beta = found
    has = record[HAS]
    layer.__dict__.update(
        grad_gamma=grad_gamma if has & HAS_GAMMA else None,
        grad_beta=grad_beta if has & HAS_BETA else None,
        grad_residual=None,
    )
    return dx


def backward(layer: Module, dy: ArrayLike, x: ArrayLike, saved: SavedStatistics, out: Array | None) -> Array:
    """dx by ctypes, or the error."""
    fit, dy, _, dx, dy_address, x_address, dx_address = direct.backward(dy, x, layer._axis, out)
    fit = _of_layer(layer, fit)
    shape, kind = layer._channel_shape, layer._param_dtype
    grad_gamma = None if saved._gamma is None else np.empty(shape, kind)
    grad_beta = None if saved._beta is None else np.empty(shape, kind)
    of_gamma = None if grad_gamma is None else address(grad_gamma)
    of_beta = None if grad_beta is None else address(grad_beta)
    told, parameters = options(frozen=saved._frozen, param_code=fit.param_code), (saved._gamma, saved._beta)
    native.backward(fit, dy_address, x_address, parameters, saved._addresses(), dx_address, (of_gamma, of_beta), told)
    layer.__dict__.update(grad_gamma=grad_gamma, grad_beta=grad_beta, grad_residual=None)
    return dx
