# SPDX-License-Identifier: Apache-2.0
"""A batch in parts, as for gradient accumulation, normalized with the statistics of all of it.

Four passes over the parts, each of which may be computed anew in between::

    batch = bn.MicroBatches()
    for x in parts:
        batch.add(x)
    y = [batch.normalize(x, gamma, beta) for x in parts]
    for dy, x in zip(gradients, parts):
        batch.add_gradient(dy, x)
    dx = [batch.apply_gradient(dy, x) for dy, x in zip(gradients, parts)]
    batch.update_running(running_mean, running_var)

This is what one call with all parts would give, but for the order in which sums are added up.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import Array, Doubles, plain
from .._core.layout import Axis
from .._core.options import DEFAULT_MOMENTUM
from .._core.pickling import Versioned
from .._core.public import publish
from ..statistics.functions import inverse_std, update_running
from ..statistics.moments import Moments
from .steps import Sums, backward_apply, backward_reduce, normalize


@publish
class MicroBatches(Versioned):
    """Statistics and gradients of one batch, of which only a part is there at a time.

    Parameters
    ----------
    axis : int or tuple of int, default 1
        The channel axis, or a group of adjacent ones, of every part.
    eps : float, default 1e-5
        Added to the variance.

    Attributes
    ----------
    moments : Moments or None
        The moments of all values that were added.
    dgamma, dbeta : ndarray of float64, or None
        Gradients with respect to gamma and beta of all that add_gradient() was given, one element per channel.

    Raises
    ------
    RuntimeError
        By a method that comes too early: before add(), or add_gradient().
    """

    def __init__(self, axis: Axis = 1, eps: float = 1e-5) -> None:
        inverse_std([0.0], [0.0], eps)  # so that a mistake shows here
        self.axis, self.eps = axis, eps
        self.moments: Moments | None = None
        self._invstd: Doubles | None = None
        self._sums: Sums | None = None
        self._gamma: Any = ...  # as normalize() had it; it may be None

    def add(self, x: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Counts a part of any size in the statistics, its positions with `weights` as in forward_training()."""
        self.moments = (self.moments or Moments(self.axis)).update(x, weights)
        self._invstd = None

    @property
    def mean(self) -> Doubles:
        """The mean of all values that were added, one element per channel."""
        return self._added().mean

    @property
    def invstd(self) -> Doubles:
        """1 / sqrt(variance + eps) of all that was added, one element per channel."""
        if self._invstd is None:
            self._invstd = self._added().invstd(self.eps)
        return self._invstd

    def normalize(
        self,
        x: ArrayLike,
        gamma: ArrayLike | None = None,
        beta: ArrayLike | None = None,
        out: Array | None = None,
    ) -> Array:
        """y of a part. All parts are of one gamma, which is copied for apply_gradient()."""
        gamma = self._checked(gamma)
        y = normalize(x, self.mean, self.invstd, gamma, beta, axis=self.axis, out=out)
        self._gamma = gamma
        return y

    def add_gradient(self, dy: ArrayLike, x: ArrayLike) -> None:
        """Counts a part's gradient dy in dgamma and dbeta."""
        part = backward_reduce(dy, x, self.mean, self.invstd, axis=self.axis)
        self._sums = part if self._sums is None else Sums(*(a + b for a, b in zip(self._sums, part)))

    def apply_gradient(
        self,
        dy: ArrayLike,
        x: ArrayLike,
        gamma: ArrayLike | None = None,
        out: Array | None = None,
        weights: ArrayLike | None = None,
    ) -> Array:
        """dx of a part, after add_gradient() of all of them; `weights` as in add().

        gamma is that of normalize(). If it is given once more, it has to be the same (ValueError); it is needed if
        normalize() was not called.
        """
        if self._sums is None:
            raise RuntimeError("apply_gradient() was called before add_gradient()")
        if gamma is not None:
            gamma = self._checked(gamma)
        elif self._gamma is not ...:
            gamma = self._gamma
        count, mean, _ = self._added()
        return backward_apply(
            dy, x, mean, self.invstd, count, *self._sums, gamma, axis=self.axis, out=out, weights=weights
        )

    @property
    def dgamma(self) -> Doubles | None:
        return None if self._sums is None else self._sums.sum_dy_x_hat

    @property
    def dbeta(self) -> Doubles | None:
        return None if self._sums is None else self._sums.sum_dy

    def update_running(
        self,
        running_mean: Array,
        running_var: Array,
        *,
        momentum: float = DEFAULT_MOMENTUM,
        decay: float | None = None,
        unbiased: bool = True,
    ) -> None:
        """Moves running statistics, in place, towards those of all that was added, once."""
        settings = {"momentum": momentum, "decay": decay, "unbiased": unbiased}
        update_running(running_mean, running_var, *self._added(), **settings)  # type: ignore[arg-type]

    def _checked(self, gamma: ArrayLike | None) -> Any:
        """A copy of gamma, if it is that of the parts before; None stands for 1."""
        if self._gamma is ...:
            return copy.deepcopy(gamma)
        ones = np.ones(self.mean.shape)
        given, known = (ones if each is None else plain(each, "gamma") for each in (gamma, self._gamma))
        if not np.array_equal(given.ravel(), known.ravel()):
            raise ValueError(f"gamma is {given}, expected {known}, as normalize() was given it")
        return self._gamma

    def _added(self) -> Moments:
        if self.moments is None:
            raise RuntimeError("there is nothing to normalize with before add()")
        return self.moments
