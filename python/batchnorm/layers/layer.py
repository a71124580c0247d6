# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as a layer: parameters, gradients, running statistics, training and evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._core.arrays import Array, of_layer, shape_of
from .._core.foreign import like, viewed
from .._core.layout import Axis, as_axis
from .._core.options import DEFAULT_MOMENTUM, flag, weight_of_new
from .._core.public import publish
from .._core.weights import Masked, PositionWeights
from ..functional.saved import SavedStatistics
from ..settings.activations import Activation
from ..settings.groups import Groups, rows_of
from ..settings.running import Running
from ..settings.sources import Source
from . import extended_calls, plain_calls
from .module import Module, dtypes_of, extents_of


@publish
class BatchNorm(Module):
    """A layer that normalizes each channel and learns its scale and shift (Ioffe and Szegedy, arXiv:1502.03167).

    In training it uses the mean and variance of the batch and moves the running statistics towards them; in evaluation
    it uses the running statistics. See forward_training() for the formulas and for which arrays are copied.

    Parameters
    ----------
    num_features : int or tuple of int
        Number of channels; for a group of channel axes, the length of each.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        Weight of the new batch in the running statistics; None gives every batch the same weight (cumulative average).
    affine : bool, default True
        True for a layer with gamma (ones at first) and beta (zeros).
    track_running_stats : bool, default True
        Without them the statistics of the batch serve in evaluation as well.
    dtype : float32, float64, float16 or bfloat16 (of the package ml_dtypes), default float32
        The dtype of x and y, and of parameters and running statistics, which are float32 beside 16 bits.
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones. It is given by name, as PyTorch has eps in its place.
    decay : float, optional
        Weight of the old average, in place of `momentum`.
    unbiased : bool, default True
        True if running_var takes the variance over M - 1, False if over M.
    param_dtype : float32 or `dtype`, optional
        The dtype of the parameters and the running statistics.
    activation, source, groups
        As in forward_training(). With groups that have parameters or running statistics each, those arrays are of shape
        (groups, *channels); `Segments([], 3)` will do here, as the index is of each batch.
    running : Running, optional
        The policy for running statistics, without `pure` and `num_batches`: the layer counts.
    frozen : bool, default False
        Training, too, uses the running statistics, which stay as they are and are constants to the gradient; gamma and
        beta have theirs. FrozenBatchNorm2d is a layer of which nothing is trained.

    Attributes
    ----------
    activation, running, source, groups, frozen
        May be assigned at any time: a limit that grows, the index of the next batch.
    num_features, axis, dtype, param_dtype
        As the layer was made; they cannot be assigned.
    gamma, beta, running_mean, running_var : ndarray or None
        May be assigned or changed at any time, by another thread as well: a call looks at all four at one moment, and
        backward() knows them as they were. Running statistics are updated in place in training, where they may not be
        read-only.
    grad_gamma, grad_beta, grad_residual : ndarray or None
        Written anew, not added to, by each backward().
    num_batches_tracked : int, or ndarray of int64 if each group has running statistics
        Training batches that the running statistics have seen. An empty batch, which leaves the statistics as they
        are, does not count (PyTorch counts it), so that the cumulative average stays one.
    training : bool
        True at first.

    Raises
    ------
    ValueError, TypeError
        An argument is out of its range, or of a wrong type. By a call: as in forward_training(), and x has another
        dtype or number of channels than the layer.

    Examples
    --------
    Channels at the last axis, and a mean and a variance for each of two positions and three channels:

    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm((2, 3), axis=(1, 2), decay=0.9, unbiased=False)
    >>> y = layer(np.float32([[[0, 1, 2], [3, 4, 5]], [[2, 3, 4], [5, 6, 7]]]))
    >>> print(y.shape, layer.gamma.shape, layer.running_mean[1].round(1))
    (2, 2, 3) (2, 3) [0.4 0.5 0.6]
    """

    def __init__(
        self,
        num_features: int | tuple[int, ...],
        eps: float = 1e-5,
        momentum: float | None = DEFAULT_MOMENTUM,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike | None = np.float32,
        *,
        axis: Axis = 1,
        decay: float | None = None,
        unbiased: bool = True,
        param_dtype: DTypeLike | None = None,
        activation: Activation | None = None,
        running: Running | None = None,
        source: Source | None = None,
        groups: Groups | None = None,
        frozen: bool = False,
    ) -> None:
        axis = as_axis(axis)
        self._channel_shape = extents = extents_of(num_features)
        if not extents or min(extents) < 1:
            raise ValueError(f"num_features is {num_features}, expected at least 1")
        if len(extents) != (len(axis) if isinstance(axis, tuple) else 1):
            raise ValueError(
                f"num_features is {num_features} and axis is {axis}, expected as many of one as of the other"
            )
        self._dtype, self._param_dtype = dtypes_of(dtype, param_dtype)
        self._num_features, self._axis = num_features, axis
        self.eps, self.unbiased = eps, unbiased
        self.momentum = weight_of_new(momentum, decay)
        self.training = True
        self.activation, self.running, self.source, self.groups = activation, running, source, groups
        self.frozen = frozen
        flags = flag(affine, "affine"), flag(track_running_stats, "track_running_stats")
        super().__init__(self._channel_shape, self.param_dtype, *flags, rows_of(groups))
        self.grad_gamma = self.grad_beta = self.grad_residual = None
        self._last = None
        extended_calls.check(self)

    def __call__(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        residual: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        masked: Masked = "normalize",
        training: bool | None = None,
    ) -> Array:
        """Normalizes x with the statistics of the batch in training, and with the running statistics in evaluation.

        `training`, if given, says for this call which of the two it is, in place of train() and eval().

        x is of the layer's dtype. Numbers that have none of floating point, which are lists and arrays of integers, are
        cast to it. `residual`, `weights`, `lengths` and `masked` as in forward_training().

        `out`, if given, takes y in place; it may be x itself, but then there is no backward(), unless `activation` is
        "identity" or a LeakyReLU of a slope above 0 and there is no residual: then it finds x_hat from y. The layer
        keeps x, not a copy of it: whoever changes x before backward() changes the gradient.
        """
        if self.ranks:
            self._check_rank(len(shape_of(x, "x")))
        told = residual is not None or weights is not None or lengths is not None or masked != "normalize"
        if told or self._is_described:
            positions = PositionWeights(weights, lengths, masked)
            return like(x, extended_calls.forward(self, x, out, residual, positions, training), out)
        y = plain_calls.forward_by_built_in(self, x, out, training)
        if y is None:
            y = like(x, plain_calls.forward(self, x, out, training), out)
        return y  # type: ignore[no-any-return]

    def backward(self, dy: ArrayLike, out: Array | None = None) -> Array:
        """dx, given the gradient dy of a loss with respect to the last y. grad_gamma, grad_beta and grad_residual are
        written anew.

        gamma and beta are those that y was made with, whatever has become of the layer's since then. x has to be what
        it was: the layer keeps no copy, and does not notice a change in place.

        `out`, if given, takes dx in place; it may be dy itself. RuntimeError if there was no forward call, or if it
        wrote y over x.
        """
        last = self._last
        if last is None:
            raise RuntimeError("backward() was called before the layer")
        x, saved, _ = last
        if x is None:
            raise RuntimeError("backward() needs the x of the last call, which was overwritten by out=x")
        dx = plain_calls.backward_by_built_in(self, dy, x, saved, out)
        if dx is not None:
            return dx  # type: ignore[no-any-return]
        (own,) = viewed(dy=of_layer(dy, "dy", self._dtype))
        if type(saved) is not SavedStatistics or saved._dtype is None:
            return like(dy, extended_calls.backward(self, last, own, out), out)
        return like(dy, plain_calls.backward(self, own, x, saved, out), out)
