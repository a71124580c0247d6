# SPDX-License-Identifier: Apache-2.0
"""A layer whose batch lies in several processes."""

from __future__ import annotations

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
from ..functional.samples import added, gathered_samples, moments_of_samples, sums_of_samples
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
    samples: tuple[int, ...]  # of each process, if that is known


class SyncBatchNorm(BatchNorm):
    """BatchNorm whose statistics are those of a batch that several processes share, each having some of its samples.

    All processes make the same calls in the same order, with arrays that may differ in their number of samples; it may
    be 0. Running statistics are then equal on all of them, to the bit. In evaluation nothing is exchanged.

    The gradient `dy` is that of one loss of the whole batch, such as a sum over all samples, or a sum divided by the
    number of samples of all processes. grad_gamma and grad_beta are those of this process's samples: their sum over the
    processes is the batch's, and stands in total_grad_gamma and total_grad_beta on each of them. (torch's
    DistributedDataParallel averages over processes, so that there each process multiplies its loss by their number.)

    All processes have the same bits, but with another number of processes, or the samples shared out otherwise, the
    last bits of statistics and sums are others, as their terms are added in another order. With `reproducible` they are
    the same, bit for bit, however the batch is parted: y, dx, the running statistics, total_grad_gamma and
    total_grad_beta. (grad_gamma and grad_beta are of a part, and so are sums of them that others make.) Samples have to
    be in the same order, process after process, and to lie in memory in the same way everywhere. It takes a pass over
    each sample, and an exchange of three numbers per sample and channel.

    Parameters
    ----------
    num_features : int or tuple of int
        Number of channels.
    exchange : callable
        Takes a float64 array of shape (k, channels), and returns those of all processes, in the same order on each of
        them, as one of shape (processes, k, channels): exchange_mpi(), exchange_torch(), or a function of your own.
    eps, momentum, affine, track_running_stats, dtype, axis, decay, unbiased, param_dtype
        As in BatchNorm. With `reproducible`, axis 0 is that of the samples, and no channel axis.
    reproducible : bool, default False
        True for results that do not depend on how many processes there are, and how many samples each of them has.

    Attributes
    ----------
    reproducible : bool
    total_grad_gamma, total_grad_beta : ndarray or None
        The gradients of the last backward() of all processes together; None where grad_gamma and grad_beta are.

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

    reproducible: bool = False
    total_grad_gamma: Any = None
    total_grad_beta: Any = None

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
        reproducible: bool = False,
    ) -> None:
        if not callable(exchange):
            raise TypeError(f"exchange is of type {kind_of(exchange)}, expected a function")
        more: dict[str, Any] = {"axis": axis, "decay": decay, "unbiased": unbiased, "param_dtype": param_dtype}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, **more)
        self._exchange = exchange
        self.reproducible = flag(reproducible, "reproducible")

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
        whole, samples = self._merged(x, weights, lengths)
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
        self.__dict__["_last"] = _Call(
            x if is_kept else None, mean, invstd, count, gamma, beta is not None, positions, samples
        )
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

    def _merged(self, x: Array, weights: Any, lengths: Any) -> tuple[Moments, tuple[int, ...]]:
        """The moments of the whole batch, and how many samples each process has, if it matters."""
        positions = {"weights": weights, "lengths": lengths}
        samples: tuple[int, ...] = ()
        if self.reproducible:
            rows, samples = gathered_samples(self._gathered, moments_of_samples(x, self.axis, **positions))
        else:
            rows = self._gathered(np.stack([np.ravel(each) for each in moments(x, self.axis, **positions)]))
        of_nothing = np.zeros((1, *rows.shape[1:]))
        return merge_moments((rows if len(rows) else of_nothing).reshape(-1, 3, *self._channel_shape)), samples

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
        of_part, of_batch = self._sums(dy, last)
        sum_dy, sum_dy_x_hat = of_batch
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
        for name, sums in (("grad", of_part), ("total_grad", of_batch)):
            grad_beta, grad_gamma = (each.astype(self.param_dtype) for each in sums)
            self.__dict__[f"{name}_gamma"] = None if last.gamma is None else grad_gamma
            self.__dict__[f"{name}_beta"] = grad_beta if last.has_beta else None
        self.grad_residual = None
        return like(given, dx, out)

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + ", reproducible=True)" if self.reproducible else super().__repr__()

    def _sums(self, dy: Array, last: _Call) -> tuple[Doubles, Doubles]:
        """sum(dy) and sum(dy * x_hat) of this part, and of the whole batch."""
        given: tuple[Any, ...] = dy, last.x, last.mean, last.invstd
        if self.reproducible:
            rows = sums_of_samples(*given, axis=self.axis, **last.positions)
            parts, _ = gathered_samples(self._gathered, rows, last.samples)
            own = added(rows)
        else:
            own = np.stack([np.ravel(each) for each in backward_reduce(*given, axis=self.axis, **last.positions)])
            parts = self._gathered(own)
        shape = 2, *self._channel_shape
        return own.reshape(shape), added(parts).reshape(shape)


def _check_output(out: Any, like: Array, name: str) -> None:
    """An error if `out` is none for a tensor like this one, of which it may be the same memory."""
    if out is None:
        return
    array = output(out, "out", like)
    if np.may_share_memory(array, like) and address(array) != address(like):
        raise ValueError(f"out overlaps {name}, expected memory of its own, or the same array")


def _is_single(count: Doubles) -> bool:
    return bool((count == 1).any())
