# SPDX-License-Identifier: Apache-2.0
"""Batch normalization as a layer: parameters, gradients, running statistics, training and evaluation."""

from __future__ import annotations

from ctypes import addressof
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, DTypeLike

from .._core import built_ins, direct
from .._core.arrays import Array, address, of_layer, shape_of
from .._core.arrays import running as running_address
from .._core.foreign import like, viewed
from .._core.held import held, read_only
from .._core.layout import Axis, Plan, as_axis
from .._core.library import lib
from .._core.makers import NUMPY, TORCH
from .._core.options import DEFAULT_MOMENTUM, flag, make_options, options, weight_of_new
from .._core.public import publish
from .._core.records import HAS, HAS_BETA, HAS_GAMMA, IS_IN_PLACE
from .._core.weights import Masked, PositionWeights
from ..functional.gradient import by_record
from ..functional.saved import SavedStatistics
from ..settings.activations import Activation
from ..settings.groups import Groups, rows_of
from ..settings.running import Running
from ..settings.sources import Source
from . import extended_calls
from .module import Module, dtypes_of, extents_of
from .parameters import four_of


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
        given = x
        if told or self._is_described:
            positions = PositionWeights(weights, lengths, masked)
            return like(given, extended_calls.forward(self, x, out, residual, positions, training))
        if type(x) is ndarray and x.dtype is self._dtype:
            maker: Any = NUMPY
        else:
            x, maker = self._own(x, out)
        if maker is not None and built_ins.forward_training is not None:
            y = self._by_built_in(maker, x, out, training)
            if y is not None:
                return y  # type: ignore[no-any-return]
        fit, x, y, x_address, y_address = direct.forward(x, self._axis, out)
        known = self._plan  # of the call before
        fit = known[1] if fit is known[0] else self._plan_of(fit)
        gamma, beta, mean, var = four_of(self.__dict__)
        # This is held() written out: two calls and some attributes less are a tenth of a small call's time.
        param, shape = self._param_dtype, self._channel_shape
        if type(gamma) is ndarray and gamma.dtype is param and gamma.shape == shape:
            gamma = gamma.tobytes()
        else:
            gamma = held(gamma, "gamma", fit)
        if type(beta) is ndarray and beta.dtype is param and beta.shape == shape:
            beta = beta.tobytes()
        else:
            beta = held(beta, "beta", fit)
        trains = self.training if training is None else flag(training, "training")
        of_batch = trains or mean is None
        saved = SavedStatistics(shape, not of_batch, self._axis, x.shape, self._dtype, param, gamma, beta)
        if of_batch:
            self._train(fit, saved, x_address, y_address, trains and self.track_running_stats, mean, var)
        else:
            self._evaluate(fit, saved, x_address, y_address, mean, var)
        self.__dict__["_last"] = None if x_address == y_address else x, saved, False
        return like(given, y)

    def _own(self, x: Any, out: Any) -> tuple[Any, Any]:
        """x as the layer takes it, and its maker, if a built-in function may take it."""
        maker = TORCH.get(type(x))
        if maker is not None:
            is_recorded = maker.records() and maker.require_gradients(x, out)
            return x, maker if maker.is_of(x, self._dtype) and not is_recorded else None
        x = of_layer(x, "x", self._dtype)
        return x, NUMPY if type(x) is ndarray and x.dtype is self._dtype else None

    def _by_built_in(self, maker: Any, x: Any, out: Any, training: Any) -> Any:
        """y by a built-in function; None if it does not take the arrays: then nothing was written."""
        state = self.__dict__
        gamma, beta, mean, var = four_of(state)
        trains = state["training"] if training is None else training
        # Without an array nothing would have the layer's number of channels.
        if (gamma is None and mean is None) or not (trains is True or trains is False):
            return None
        y = maker.empty_like(x) if out is None else out
        if trains or mean is None:
            tracks = trains and state["track_running_stats"]
            if not tracks:
                mean = var = None
            count, weight = state["num_batches_tracked"] + 1, state["momentum"]
            if weight is None:
                weight = 1.0 / count
            unbiased, built_in = state["unbiased"], built_ins.forward_training
            record = built_in(x, gamma, beta, mean, var, y, self._axis, weight, state["eps"], unbiased)
            if tracks and record is not None and 0 not in x.shape:
                state["num_batches_tracked"] = count
        else:
            record = built_ins.forward_inference(x, gamma, beta, mean, var, y, self._axis, state["eps"], True)
        if record is None:
            return None
        state["_last"] = None if record[HAS] & IS_IN_PLACE else x, SavedStatistics._of(record), False
        return y

    def _train(
        self, fit: Plan, saved: SavedStatistics, x_address: int, y_address: int, tracking: bool, mean: Any, var: Any
    ) -> None:
        """y from the batch's own statistics, which move the running ones if `tracking`."""
        count = self.num_batches_tracked + 1 if tracking else 0
        mean_address = addressof(saved._both)
        lib.bn_forward_training(
            fit.shape,
            fit.code,
            x_address,
            saved._gamma,
            saved._beta,
            running_address(mean, "running_mean", fit) if tracking else None,
            running_address(var, "running_var", fit) if tracking else None,
            y_address,
            mean_address,
            mean_address + 8 * fit.channels,
            self._training_options(fit.param_code)
            if self.momentum is None
            else options(self.eps, self.momentum, self.unbiased, False, fit.param_code),
        )
        if tracking and not fit.empty:
            self.__dict__["num_batches_tracked"] = count

    def _evaluate(self, fit: Plan, saved: SavedStatistics, x_address: int, y_address: int, mean: Any, var: Any) -> None:
        """y from the running statistics."""
        mean, of_mean = read_only(mean, "running_mean", fit)
        var, of_var = read_only(var, "running_var", fit)
        mean_address = addressof(saved._both)
        lib.bn_forward_inference(
            fit.shape,
            fit.code,
            x_address,
            saved._gamma,
            saved._beta,
            of_mean,
            of_var,
            y_address,
            mean_address,
            mean_address + 8 * fit.channels,
            options(self.eps, param_code=fit.param_code) if fit.param_code else options(self.eps),
        )

    def _plan_of(self, fit: Plan) -> Plan:
        """The plan of a call with the layer's parameters, if its x is one for this layer."""
        if fit.channel_shape != self._channel_shape or fit.dtype != self._dtype:
            raise self._mismatch(fit.channel_shape, fit.dtype)
        mine = fit
        if fit.param != self._param_dtype:
            mine = fit._replace(param=self._param_dtype, param_code=fit.code)
        self._plan = fit, mine
        return mine

    def _training_options(self, param_code: int) -> Any:
        """With a factor of their own for every batch: not worth keeping."""
        weight = 1.0 / (self.num_batches_tracked + 1)
        return make_options(self.eps, weight, self.unbiased, False, param_code)

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
        given = dy
        if type(dy) is not ndarray or dy.dtype is not self._dtype:
            dy = of_layer(dy, "dy", self._dtype)
        if type(saved) is SavedStatistics and saved._record is not None:
            found = by_record(dy, x, saved._record, out, NUMPY)
            if found is not None:
                has = saved._record[HAS]
                grad_gamma = found[1] if has & HAS_GAMMA else None
                grad_beta = found[2] if has & HAS_BETA else None
                self.__dict__.update(grad_gamma=grad_gamma, grad_beta=grad_beta, grad_residual=None)
                return found[0]  # type: ignore[no-any-return]
        if type(saved) is not SavedStatistics or saved._dtype is None:
            (dy,) = viewed(dy=dy)
            return like(given, extended_calls.backward(self, last, dy, out))
        fit, dy, _, dx, dy_address, x_address, dx_address = direct.backward(dy, x, self._axis, out)
        known = self._plan
        fit = known[1] if fit is known[0] else self._plan_of(fit)
        grad_gamma = None if saved._gamma is None else np.empty(self._channel_shape, self._param_dtype)
        grad_beta = None if saved._beta is None else np.empty(self._channel_shape, self._param_dtype)
        mean_address = addressof(saved._both)
        lib.bn_backward(
            fit.shape,
            fit.code,
            dy_address,
            x_address,
            saved._gamma,
            saved._beta,
            mean_address,
            mean_address + 8 * fit.channels,
            dx_address,
            None if grad_gamma is None else address(grad_gamma),
            None if grad_beta is None else address(grad_beta),
            options(frozen=saved._frozen, param_code=fit.param_code),
        )
        self.__dict__.update(grad_gamma=grad_gamma, grad_beta=grad_beta, grad_residual=None)
        return like(given, dx)
