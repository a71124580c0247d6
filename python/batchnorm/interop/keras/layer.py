# SPDX-License-Identifier: Apache-2.0
"""The Keras layer: its calls, forward and backward."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from ..._core.arrays import Array, Doubles
from ..._core.options import flag
from ..._core.pickling import attributes_of, versioned
from ..._core.public import publish
from ..._core.rounding import cast
from ..._core.structs import Outcome
from ...functional.forward import forward_inference, forward_training
from ...functional.frozen import frozen_statistics
from ...functional.gradient import backward
from ...functional.saved import SavedStatistics
from ...settings.running import Running
from ...statistics.functions import moments, update_running
from . import renorm as renormalization
from .inputs import converted, positions
from .renorm import Renormed
from .weights import Weights


@publish
class BatchNormalization(Weights):
    """Keras's layer: it normalizes with the batch in training, and with the moving averages otherwise (the default).

    ::

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta
        moving_mean     = momentum * moving_mean     + (1 - momentum) * mean         of the batch
        moving_variance = momentum * moving_variance + (1 - momentum) * variance     biased: over M

    Weights are made by build(), or by the first call, which knows the number of channels. One value per channel is a
    batch of variance 0, as in Keras.

    Parameters
    ----------
    axis : int, default -1
        The channel axis.
    momentum : float, default 0.99
        Weight of the old average, 0 to 1.
    epsilon : float, default 1e-3
        Added to the variance: finite, at least 0. With 0, a channel of zero variance gives beta, not NaN.
    center, scale : bool, default True
        True if there is a beta, and a gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer
        "zeros", "ones", a number, an array of one element per channel, or a function that is called with a shape and
        dtype=, as Keras's initializers are.
    beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint : None
        They are None, as is Keras's default: the caller of backward() decides what to do with a gradient.
    renorm : bool, default False
        Batch renormalization (arXiv:1702.03275) in training: y = gamma * (x_hat * r + d) + beta, with r and d from
        averages of their own.
    renorm_clipping : dict, optional
        Limits, each of which may be missing: r is from "rmin" to "rmax", d from -"dmax" to "dmax".
    renorm_momentum : float, default 0.99
        Weight of the old average in renorm_mean and renorm_stddev.
    synchronized : False
        It is False: statistics over several processes are in `batchnorm.functional.steps`.
    trainable : bool, default True
        If False, the layer is in inference mode in training, too. It may be assigned at any time.
    dtype : str, default "float32"
        A policy: "float32", "float64", "float16", "bfloat16" (of the package ml_dtypes) for all arrays, "mixed_float16"
        or "mixed_bfloat16" for weights of float32.
    name : str, optional

    Attributes
    ----------
    gamma, beta, moving_mean, moving_variance : ndarray or None
        One element per channel; None before build(), gamma without `scale` and beta without `center` ever after. They
        are updated in place, and may be replaced by arrays of the same dtype and shape.
    moving_stddev, renorm_mean, renorm_stddev : ndarray or None
        With `renorm`: moving_variance is the square of moving_stddev, less epsilon; r and d come from the other two.
    grad_gamma, grad_beta : ndarray or None
        Written anew, not added to, by each backward().
    built : bool
    name, dtype, variable_dtype, compute_dtype : str
        `dtype` is that of the weights, as in Keras.

    Raises
    ------
    ValueError, TypeError
        A number is out of its range, a value is none of those above, or an argument is not known.
    ImportError
        A policy of bfloat16 without ml_dtypes.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> x = np.array([[1, 10], [3, 30]], np.float32)
    >>> layer = bn.interop.keras.BatchNormalization(momentum=0.5, epsilon=0)
    >>> print(layer(x, training=True))
    [[-1. -1.]
     [ 1.  1.]]
    >>> print(layer.moving_mean, layer.moving_variance)
    [ 1. 10.] [ 1.  50.5]
    >>> dx = layer.backward(np.ones_like(x))
    >>> print(layer.grad_beta, layer.grad_gamma)
    [2. 2.] [0. 0.]
    >>> same = bn.interop.keras.BatchNormalization.from_config(layer.get_config())
    >>> same.build(x.shape)
    >>> same.set_weights(layer.get_weights())
    >>> print(np.array_equal(same(x), layer(x)))
    True
    """

    grad_gamma: Any = None
    grad_beta: Any = None
    _x: Array | None = None
    _last: SavedStatistics | Renormed | None = None

    def __call__(self, inputs: ArrayLike, training: bool | None = None, mask: ArrayLike | None = None) -> Array:
        """The same as call()."""
        return self.call(inputs, training, mask)

    def call(self, inputs: ArrayLike, training: bool | None = None, mask: ArrayLike | None = None) -> Array:
        """y, in the compute dtype and in the memory order of the inputs.

        Parameters
        ----------
        inputs : array_like of real numbers
            They have the rank and the channels that the layer was built for. The layer keeps the array, if it is of the
            compute dtype, not a copy of it: whoever changes it before backward() changes the gradient.
        training : bool, optional
            True if the statistics of the batch serve, and move the averages; None is False, as in Keras outside of
            fit(). Without effect on a layer that is not trainable.
        mask : array_like of bool or real numbers, optional
            In the inputs' shape without the last axis; lengths of 1 are repeated. Positions other than 0 count in the
            statistics; all of the inputs are normalized. Without effect in inference.

        Raises
        ------
        ValueError, TypeError
            A shape, a dtype or a weight does not fit. Nothing has changed then.
        """
        if training is not None:
            training = flag(training, "training")
        x = converted(inputs, "inputs", self._compute)
        channel_axis = self._axis_in(x.shape)
        weights = None if mask is None else positions(mask, x, channel_axis)
        if not self.built:
            self.build(x.shape)
        training = bool(training) and self.trainable
        self._check_weights(updated=training)
        told: dict[str, Any] = {"axis": self.axis, "eps": self.epsilon}
        averages = self.moving_mean, self.moving_variance
        running = {"running_mean": averages[0], "running_var": averages[1]}
        last: SavedStatistics | Renormed
        if not training:
            y = forward_inference(x, self.gamma, self.beta, **running, **told)
            last = frozen_statistics(**running, eps=self.epsilon, gamma=self.gamma, beta=self.beta, axis=self.axis)
        elif self.renorm:
            limits = self.renorm_clipping or {}
            of_renorm = self.renorm_mean, self.renorm_stddev
            last = renormalization.correct(x, self.axis, self.epsilon, *of_renorm, limits, weights)
            y = renormalization.forward(x, self.axis, last, self.gamma, self.beta)
            if not last.is_empty:
                self._move(last.moments.mean, last.std)
        else:
            told.update(decay=self.momentum, unbiased=False, weights=weights)
            told["running"] = Running(single_value="beta")
            y, saved = forward_training(x, self.gamma, self.beta, **running, **told)
            if saved.outcome == Outcome.BETA:  # which would leave the averages as they are
                batch = moments(x, self.axis, weights=weights)
                update_running(*averages, *batch, decay=self.momentum, unbiased=False)
            last = saved
        self._x, self._last = x, last
        return y

    def backward(self, dy: ArrayLike) -> Array:
        """dx, given the gradient dy of a loss with respect to the last y; grad_gamma and grad_beta are written anew.

        They are as Keras's automatic differentiation would have them: a batch's statistics are functions of x, moving
        averages and renorm's r and d are constants, and what a mask hides has a gradient all the same. There are
        gradients of gamma and beta also for a layer that is not trainable.

        Parameters
        ----------
        dy : array_like of real numbers, in y's shape

        Returns
        -------
        dx : ndarray of the compute dtype

        Raises
        ------
        RuntimeError
            There was no call.
        """
        if self._x is None or self._last is None:
            raise RuntimeError(f"backward() of the layer {self.name!r} was called before the layer")
        gradient = converted(dy, "dy", self._compute)
        self._check_weights()
        if isinstance(self._last, Renormed):
            dx, dgamma, dbeta = renormalization.backward(gradient, self._x, self.axis, self._last, self.gamma)
        else:
            dx, dgamma, dbeta = backward(gradient, self._x, self._last)
        self.grad_gamma = None if self.gamma is None else cast(dgamma, self._variable)
        self.grad_beta = None if self.beta is None else cast(dbeta, self._variable)
        return dx

    def _move(self, mean: Doubles, std: Doubles) -> None:
        """Renorm's averages and the ordinary ones, of which the variance is made of the standard deviation."""
        stddev = renormalization.moved(self.moving_stddev, std, self.momentum)
        for average, values in (
            (self.renorm_mean, renormalization.moved(self.renorm_mean, mean, self.renorm_momentum)),
            (self.renorm_stddev, renormalization.moved(self.renorm_stddev, std, self.renorm_momentum)),
            (self.moving_mean, renormalization.moved(self.moving_mean, mean, self.momentum)),
            (self.moving_stddev, stddev),
            (self.moving_variance, renormalization.variance_of(stddev, self.epsilon)),
        ):
            average[...] = cast(values, self._variable)

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle is of the layer, not of its last call."""
        return versioned({key: value for key, value in vars(self).items() if key not in ("_x", "_last")})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(attributes_of(state, type(self)))

    def __repr__(self) -> str:
        return f"<BatchNormalization name={self.name}, axis={self.axis}, built={self.built}>"
