# SPDX-License-Identifier: Apache-2.0
"""The forward calls of a layer, in training and in inference."""

from __future__ import annotations

from typing import Any, NoReturn

from numpy import ndarray
from numpy.typing import ArrayLike

from .._core import built_ins
from .._core.arrays import Array
from .._core.foreign import like, viewed
from .._core.layout import Axis
from .._core.makers import NUMPY, TORCH
from .._core.options import DEFAULT_MOMENTUM, weight_of_new
from .._core.weights import Masked
from ..settings.activations import Activation
from ..settings.groups import Groups
from ..settings.running import Running
from ..settings.sources import Source
from . import extended, plain
from .extras import Extras
from .saved import SavedStatistics


def forward_training(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *positional: NoReturn,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    axis: Axis = 1,
    momentum: float = DEFAULT_MOMENTUM,
    decay: float | None = None,
    eps: float = 1e-5,
    unbiased: bool = True,
    out: Array | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    save_mask: bool = False,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    running: Running | None = None,
    source: Source | None = None,
    groups: Groups | None = None,
) -> tuple[Array, SavedStatistics]:
    """Normalizes x with the mean and the biased variance of this batch, and moves the running statistics towards them.

    The formulas are those of Ioffe and Szegedy (arXiv:1502.03167, algorithm 1), over the M values of a channel::

        mean = sum(x) / M        var = sum((x - mean)**2) / M
        x_hat = (x - mean) / sqrt(var + eps)        y = gamma * x_hat + beta

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16 (of the package ml_dtypes, or as its bits: dtype V2)
        Or a tensor of another package in the memory of the CPU, as all arrays here may be (DLPack). A list is float64,
        as it is to NumPy. At least two values per channel, or none: an empty batch leaves the running statistics alone.
    gamma, beta : array_like of real numbers, one element per channel, optional
        Scale and shift; None stands for 1 and for 0. They are cast to x's dtype; beside an x of 16 bits to float32,
        unless all parameters and running statistics that are arrays are of x's dtype.
    running_mean, running_var : ndarray of the parameters' dtype, one element per channel, optional
        Updated in place: running = (1 - momentum) * running + momentum * batch. Both or neither, and by name only:
        for arguments in PyTorch's order there is batch_norm().
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones in ascending order; parameters then have the shape of the group or
        are flat.
    momentum : float, default 0.1
        Weight of the new batch, as in PyTorch and cuDNN. The n-th batch with 1 / n gives the cumulative average.
    decay : float, optional
        Weight of the old average, as in Keras, flax and ONNX, in place of `momentum`.
    eps : float, default 1e-5
        Added to the variance. With 0, a channel of zero variance gives beta.
    unbiased : bool, default True
        True: running_var takes sum((x - mean)**2) / (M - 1), as in the paper and PyTorch. False: / M, as in Keras.
    out : ndarray, optional
        Takes y in place. It may be x itself; any other overlap is an error.
    activation : str, LeakyReLU or Clip, optional
        "relu", "relu6", "hard_swish", "silu" or such an object (see `batchnorm.settings.activations`). "identity",
        unlike None, lets backward() find x_hat from y.
    residual : array_like of x's shape and dtype, optional
        Added before the activation. Copied once if its memory order is not x's.
    save_mask : bool, default False
        Keep a bit for each element that says whether the gradient passes the activation, so that backward() needs no
        residual. Not for "hard_swish" and "silu".
    weights : array_like of bool or real numbers, optional
        The weight of each position in the statistics: a mask (True counts) or frequencies, finite and at least 0. The
        shape is that of x without the channel axes, or with a length of 1 there; any other length may be 1, too::

            mean = sum(w * x) / W        var = sum(w * (x - mean)**2) / W        W = sum(w)

    lengths : array_like of int, optional
        In place of weights: of each sample (axis 0) so many positions count, from the first, along the axis that is
        farthest from the channels. That is the last one of (N, C, T) and (N, C, F, T), and axis 1 of (N, T, C) and
        (N, T, F, C); where two are as far, and for another one, give weights.
    masked : "normalize", "zero" or "keep", default "normalize"
        y where the weight is 0: as anywhere else (Keras), 0, or x.
    running : Running, optional
        Other averages than the exponential one, what is done about single and non-finite values, new running statistics
        beside the old ones.
    source : Blend, Renorm or Updated, optional
        The statistics that take the place of x's own mean and variance. They need running statistics.
    groups : Ghost, Segments, Split or Conditional, optional
        Groups of samples along axis 0. Parameters and statistics per group have the shape (groups, *channels).
        An x whose samples are not outermost in memory is copied.

    Returns
    -------
    y : ndarray, or a tensor of x's kind
        `out`, or a new dense array in x's memory order.
    saved : SavedStatistics
        mean and invstd, and all that the call was given, for backward(): copies of what is small (gamma, beta, weights,
        the index of groups), but `residual` itself. Whoever changes that, or x, before backward() changes the gradient.

    Raises
    ------
    ValueError
        A shape, length, axis, option or output does not fit, arrays overlap, or there is one value per channel (or a
        value that is not finite), and `running` does not say what to do then.
    TypeError
        A dtype is none of the above, or does not go with that of x. There are more than three positional arguments.
    MemoryError
        Working memory, a few numbers per channel, could not be had.
    RuntimeError
        BATCHNORM_ISA or BATCHNORM_NUM_THREADS cannot be honoured.
    """
    if positional:
        raise _pytorchs_order("forward_training", len(positional))
    is_plain = (
        activation is None
        and residual is None
        and weights is None
        and lengths is None
        and running is None
        and source is None
        and groups is None
        and not save_mask
        and masked == "normalize"
    )
    built_in = built_ins.forward_training
    maker: Any = NUMPY if type(x) is ndarray else TORCH.get(type(x))
    is_tensor = maker is not NUMPY and maker is not None
    if is_tensor and not maker.admits(x, gamma, beta, running_mean, running_var, out):
        maker = None
    if is_plain and decay is None and maker is not None and built_in is not None:
        y = maker.empty_like(x) if out is None else out
        record = built_in(x, gamma, beta, running_mean, running_var, y, axis, momentum, eps, unbiased)
        if record is not None:
            if is_tensor:
                maker.written(out, running_mean, running_var)
            return y, SavedStatistics._of(record)
    read_and_written = {"running_mean": running_mean, "running_var": running_var}
    channels = extended.Channels(*viewed(*read_and_written, gamma=gamma, beta=beta, **read_and_written))
    weight = weight_of_new(momentum, decay)
    told: dict[str, Any] = {"axis": axis, "eps": eps, "momentum": weight, "unbiased": unbiased, "out": out}
    if is_plain:
        y, saved = plain.forward_training(x, channels, **told)
    else:
        extras = Extras(activation, residual, weights, lengths, masked, running, source, groups, save_mask)
        y, saved = extended.forward_training(x, channels, extras, **told)
    return like(x, y, out), saved


def forward_inference(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *positional: NoReturn,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    axis: Axis = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masked: Masked = "normalize",
    groups: Groups | None = None,
) -> Array:
    """Like forward_training(), but normalizes with the running statistics, which stay as they are.

    One value per channel is fine. A negative running_var is used as it is: where it outweighs eps, y is NaN.
    frozen_statistics() gives what backward() needs.

    Parameters
    ----------
    x, gamma, beta, axis, eps, out, activation, residual
        As in forward_training().
    running_mean, running_var : array_like of real numbers, one element per channel
        Cast as gamma is. Needed, and by name only: for arguments in PyTorch's order there is batch_norm().
    weights, lengths, masked
        As in forward_training(); here they only matter to `masked`.
    groups : Segments, Split or Conditional, optional
        As in forward_training(). Ghost batches are none here.

    Returns
    -------
    y : ndarray, or a tensor of x's kind
        activation(gamma * (x - running_mean) / sqrt(running_var + eps) + beta + residual).

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training().
    """
    if positional:
        raise _pytorchs_order("forward_inference", len(positional))
    is_plain = (
        activation is None
        and residual is None
        and weights is None
        and lengths is None
        and groups is None
        and masked == "normalize"
    )
    built_in = built_ins.forward_inference
    maker: Any = NUMPY if type(x) is ndarray else TORCH.get(type(x))
    is_tensor = maker is not NUMPY and maker is not None
    if is_tensor and not maker.admits(x, gamma, beta, running_mean, running_var, out):
        maker = None
    if is_plain and maker is not None and built_in is not None:
        y = maker.empty_like(x) if out is None else out
        if built_in(x, gamma, beta, running_mean, running_var, y, axis, eps, False) is not None:
            if is_tensor:
                maker.written(out)
            return y
    read = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    channels = extended.Channels(*viewed(**read))
    if is_plain:
        y = plain.forward_inference(x, channels, axis=axis, eps=eps, out=out)
    else:
        extras = Extras(activation, residual, weights, lengths, masked, groups=groups)
        y = extended.forward_inference(x, channels, extras, axis=axis, eps=eps, out=out)
    return like(x, y, out)


def _pytorchs_order(function: str, extra: int) -> TypeError:
    return TypeError(
        f"{function}() takes x, gamma and beta by position, but {3 + extra} arguments were given so: running_mean and "
        "running_var are given by name; for arguments in PyTorch's order (x, running_mean, running_var, weight, bias) "
        "there is bn.batch_norm()"
    )
