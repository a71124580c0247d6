# SPDX-License-Identifier: Apache-2.0
"""A layer whose batch lies in several processes."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._core import direct, structs
from .._core.arrays import Array, Doubles, address, kind_of, of_layer, output, running, tensor
from .._core.foreign import like, viewed
from .._core.held import array_of, held
from .._core.layout import Axis, channel_axes
from .._core.options import DEFAULT_MOMENTUM, flag, member
from .._core.weights import Masked
from ..functional.steps import backward_apply, backward_reduce, normalize
from ..layers.layer import BatchNorm
from ..layers.parameters import four_of
from ..statistics.functions import inverse_std, merge_moments, moments, update_running
from ..statistics.moments import Moments
from .exchanges import Exchange


class _Call(NamedTuple):
    """The last forward call in training, for backward()."""

    x: Array | None  # None if y was written over it
    mean: Doubles
    invstd: Doubles
    values: Doubles  # counts of the whole batch
    gamma: NDArray[Any] | None
    has_beta: bool
    positions: dict[str, Any]


class SyncBatchNorm(BatchNorm):
    """BatchNorm whose statistics are those of a batch that several processes share, each having some of its samples.

    All processes make the same calls in the same order, with arrays that may differ in their number of samples; it may
    be 0. Running statistics are then equal on all of them, to the bit. In evaluation nothing is exchanged.

    The gradient `dy` is that of one loss of the whole batch, such as a sum over all samples, or a sum divided by the
    number of samples of all processes. grad_gamma and grad_beta are those of this process's samples: their sum over the
    processes is the batch's. (torch's DistributedDataParallel averages over processes, so that there each process
    multiplies its loss by their number.)

    Parameters
    ----------
    num_features : int or tuple of int
        Number of channels.
    exchange : callable
        Takes a float64 array of shape (k, channels), and returns those of all processes, in the same order on each of
        them, as one of shape (processes, k, channels): exchange_mpi(), exchange_torch(), or a function of your own.
    eps, momentum, affine, track_running_stats, dtype, axis, decay, unbiased, param_dtype
        As in BatchNorm.

    Raises
    ------
    ValueError
        By a call: as in BatchNorm, and if the whole batch has one value per channel. A wrong array of one process is
        found before the exchange: the others wait for it then, as in any collective call.
    TypeError
        `exchange` is not callable, or does not return what it should.

    Examples
    --------
    >>> import numpy as np
    >>> from batchnorm.distributed import SyncBatchNorm
    >>> alone = SyncBatchNorm(2, exchange=lambda rows: rows[np.newaxis])  # one process
    >>> print(alone(np.float32([[1, 10], [3, 30]])).round(2))
    [[-1. -1.]
     [ 1.  1.]]
    """

    def __init__(
        self,
        num_features: int | tuple[int, ...],
        exchange: Exchange,
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
    ) -> None:
        if not callable(exchange):
            raise TypeError(f"exchange is of type {kind_of(exchange)}, expected a function")
        more: dict[str, Any] = {"axis": axis, "decay": decay, "unbiased": unbiased, "param_dtype": param_dtype}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, **more)
        self._exchange = exchange

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
        """Normalizes this process's part of the batch. Arguments as in BatchNorm, but no `residual` in training."""
        positions: dict[str, Any] = {"weights": weights, "lengths": lengths, "masked": masked}
        trains = self.training if training is None else flag(training, "training")
        if not trains and self.track_running_stats:
            return super().__call__(x, out, residual=residual, training=False, **positions)
        if self._observer is not None:
            raise ValueError("recalibrate() does not take a SyncBatchNorm: its moments are those of one process")
        if residual is not None or self._is_described:
            raise ValueError("residual, activation, running, source, groups and frozen are None in a SyncBatchNorm")
        given, x = x, tensor(of_layer(x, "x", self.dtype), "x")
        shape = tuple(x.shape[a] for a in channel_axes(self.axis, x.ndim))
        if shape != self._channel_shape or x.dtype != self.dtype:
            raise self._mismatch(shape, x.dtype)
        own = four_of(self.__dict__)
        tracks = trains and self.track_running_stats
        gamma, beta = self._checked(x, own, out, masked, tracks)
        whole = self._merged(moments(x, self.axis, weights=weights, lengths=lengths))
        count, mean, m2 = whole
        if _is_single(count) if weights is None else tracks and self.unbiased and ((count > 0) & (count <= 1)).any():
            raise ValueError(
                "the batch of all processes has one value per channel, or weights of 1 together, expected more in "
                "training, as one value has no variance: call eval() first, or give a larger batch"
            )
        invstd = inverse_std(count, m2, self.eps)
        y = normalize(x, mean, invstd, gamma, beta, axis=self.axis, out=out, **positions)
        if tracks and count.all():
            self._update(whole, *own[2:])
        is_kept = out is None or not np.may_share_memory(x, *viewed(out=out))
        self.__dict__["_last"] = _Call(x if is_kept else None, mean, invstd, count, gamma, beta is not None, positions)
        return like(given, y, out)

    def _checked(
        self, x: Array, own: tuple[Any, Any, Any, Any], out: Any, masked: Any, tracks: bool
    ) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Copies of gamma and beta. All that can be wrong here is found now, and not when the others wait."""
        fit, _, _ = direct.one(x, self.axis)
        fit = fit._replace(param=self.param_dtype)
        gamma, beta, mean, var = own
        if tracks:
            running(mean, "running_mean", fit)
            running(var, "running_var", fit)
        member(structs.Masked, masked, "masked")
        _check_output(out, x, "x")
        kept = (
            array_of(held(each, name, fit), self._channel_shape, self.param_dtype)
            for each, name in ((gamma, "gamma"), (beta, "beta"))
        )
        first, second = kept
        return first, second

    def _merged(self, own: Moments) -> Moments:
        """The moments of the whole batch."""
        rows = np.stack([np.ravel(each) for each in own])
        merged = merge_moments(self._gathered(rows))
        return merge_moments([[each.reshape(self._channel_shape) for each in merged]])

    def _gathered(self, rows: Doubles) -> Doubles:
        gathered = np.asarray(self._exchange(rows))
        if gathered.shape[1:] != rows.shape or gathered.ndim != 3 or not len(gathered) or gathered.dtype != np.float64:
            raise TypeError(
                f"exchange returned an array of {gathered.dtype} of shape {gathered.shape}, expected float64 of shape "
                f"(processes, {rows.shape[0]}, {rows.shape[1]})"
            )
        return gathered

    def _update(self, whole: Moments, running_mean: Any, running_var: Any) -> None:
        batches = self.num_batches_tracked + 1
        weight = 1.0 / batches if self.momentum is None else self.momentum
        update_running(running_mean, running_var, *whole, momentum=weight, unbiased=self.unbiased)
        self.num_batches_tracked = batches

    def backward(self, dy: ArrayLike, out: Array | None = None) -> Array:
        """dx of this process's part of the batch; see BatchNorm.backward(), and above for grad_gamma and grad_beta."""
        last: Any = self._last
        if type(last) is not _Call:
            return super().backward(dy, out)
        if last.x is None:
            raise RuntimeError("backward() needs the x of the last call, which was overwritten by out=x")
        given, dy = dy, tensor(of_layer(dy, "dy", self.dtype), "dy")
        _check_output(out, dy, "dy")
        of_part = backward_reduce(dy, last.x, last.mean, last.invstd, axis=self.axis, **last.positions)
        gathered = self._gathered(np.stack([np.ravel(each) for each in of_part]))
        sum_dy, sum_dy_x_hat = (each.reshape(self._channel_shape) for each in reduce(np.add, gathered))
        # A batch without values has no sums to divide.
        count = np.maximum(last.values, 1) if not last.values.all() else last.values
        dx = backward_apply(
            dy,
            last.x,
            last.mean,
            last.invstd,
            count,
            sum_dy,
            sum_dy_x_hat,
            last.gamma,
            axis=self.axis,
            out=out,
            **last.positions,
        )
        grads = {"grad_gamma": of_part.sum_dy_x_hat, "grad_beta": of_part.sum_dy}
        has = {"grad_gamma": last.gamma is not None, "grad_beta": last.has_beta}
        own = {name: value.astype(self.param_dtype) if has[name] else None for name, value in grads.items()}
        self.__dict__.update(own, grad_residual=None)
        return like(given, dx, out)


def _check_output(out: Any, like: Array, name: str) -> None:
    """An error if `out` is none for a tensor like this one, of which it may be the same memory."""
    if out is None:
        return
    array = output(out, "out", like)
    if np.may_share_memory(array, like) and address(array) != address(like):
        raise ValueError(f"out overlaps {name}, expected memory of its own, or the same array")


def _is_single(count: Doubles) -> bool:
    return bool((count == 1).any())
