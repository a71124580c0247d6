# SPDX-License-Identifier: Apache-2.0
"""The layer: Keras's, with another computation in training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from .batch import Batch
from .require import on_backend

_backend = on_backend()


@keras.saving.register_keras_serializable(package="batchnorm")
class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization, by this library where it trains.

    Arguments, weights, config and results are Keras's. Models are saved and loaded as others are, if `batchnorm.keras`
    was imported before keras.saving.load_model(). It differs on purpose:

    - Over PyTorch and NumPy, Keras finds the variance as E[x^2] - E[x]^2 in float32, which has no right digit left
      where the mean is 3000 times the standard deviation, and may be negative. Here it is exact, and so are the
      outputs; inputs of float64 are
      computed with as such, and those of 16 bits are not copied as float32.
    - A batch without values, or one that the mask hides as a whole, leaves the moving averages as they are. In Keras
      they become NaN, or move towards 0, and so they do here over JAX.
    - Sums under a mask are divided by the number of values, not by that plus 1e-7.

    These calls are Keras's own: evaluation, but over NumPy; graphs of PyTorch (`jit_compile`), its torch.func, and
    tensors on other devices; with a mask over JAX, and with one that differs between channels. So are r and d of
    `renorm`, which are float32.

    Over PyTorch there are gradients of gradients, but not with a mask.

    Examples
    --------
    ::

        layer = BatchNormalization(axis=-1, momentum=0.99, epsilon=1e-3)
        y = layer(x, training=True)
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """y, in the compute dtype."""
        x = inputs
        kind = keras.backend.standardize_dtype(x.dtype)
        dtype = "float64" if kind == "float64" else "float32"
        if kind not in ("float16", "bfloat16"):
            x = ops.cast(x, dtype)
        if not training or not self.trainable:
            y = _backend.evaluated(self, x)
            return super().call(inputs, training, mask) if y is None else ops.cast(y, self.compute_dtype)
        axis = self.axis % len(x.shape)
        if not _backend.takes(x, mask, axis):
            return super().call(inputs, training, mask)
        gamma = ops.cast(self.gamma, dtype) if self.scale else None
        beta = ops.cast(self.beta, dtype) if self.center else None
        if getattr(self, "renorm", False):  # which Keras 3.4 does not know
            batch = _backend.trained(ops.cast(x, dtype), None, None, axis, self.epsilon, mask)
            y = self._renormed(batch, gamma, beta, axis)
        else:
            batch = _backend.trained(x, gamma, beta, axis, self.epsilon, mask)
            y = batch.y
            if not batch.is_empty:
                self._move(self.moving_mean, batch.mean)
                self._move(self.moving_variance, batch.variance)
        return ops.cast(y, self.compute_dtype)

    def _move(self, average: Any, new: Any) -> None:
        average.assign(ops.cast(average, new.dtype) * self.momentum + new * (1.0 - self.momentum))

    def _renormed(self, batch: Batch, gamma: Any, beta: Any, axis: int) -> Any:
        """gamma * (x_hat * r + d) + beta, as Keras has it; its averages are moved."""
        r, d, mean, variance = self._renorm_correction_and_moments(batch.mean, batch.variance)
        scale, shift = self._compose_transforms(r, d, gamma, beta, mean.dtype)
        if not batch.is_empty:
            self._update_renorm_statistics(mean, variance)
        shape = [-1 if each == axis else 1 for each in range(len(batch.y.shape))]
        return batch.y * ops.reshape(scale, shape) + ops.reshape(shift, shape)


BatchNormalization.__module__ = __package__  # configs and pickles name it, wherever the code stands
