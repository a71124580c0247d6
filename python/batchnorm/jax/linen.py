# SPDX-License-Identifier: Apache-2.0
"""flax.linen's layer, trained by this library: a subclass with its arguments, variables and momentum."""

from __future__ import annotations

from typing import Any

import flax.linen
import jax.numpy as jnp
from jax import Array

from .functional import batch_norm


class BatchNorm(flax.linen.BatchNorm):
    """flax.linen.BatchNorm, by this library where it trains.

    Its variables are flax's: `scale` and `bias` in the collection `params`, `mean` and (biased) `var` in `batch_stats`,
    which keep their dtype. The arguments are flax's, too: axis is -1, and momentum the weight of the old statistics.
    With running averages, while variables are initialized, with a mask, several axes or axis_index_groups the call is
    flax's own. One value per channel is a ValueError in training.
    """

    @flax.linen.compact  # type: ignore[untyped-decorator]
    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Array | None = None) -> Any:
        frozen = self.use_running_average if use_running_average is None else use_running_average
        is_own = isinstance(self.axis, int) and mask is None and self.axis_index_groups is None
        if frozen is not False or not is_own or self.is_initializing():
            return super().__call__(x, use_running_average, mask=mask)
        flax.linen.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = (x.shape[self.axis],)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype) if self.use_scale else None
        bias = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None
        y, batch = normalized(x, scale, bias, self)
        for name, value in zip(("mean", "var"), batch):
            running = self.variable("batch_stats", name, lambda: None)
            moved = self.momentum * running.value + (1 - self.momentum) * value
            running.value = moved.astype(running.value.dtype)
        return y


def normalized(x: Any, scale: Any, bias: Any, layer: Any) -> Any:
    """y in the dtype that flax gives it, and mean and variance, computed in the widest of those that have a part."""
    there = [each for each in (scale, bias) if each is not None]
    result = flax.linen.dtypes.canonicalize_dtype(x, *there, dtype=layer.dtype)
    wide = jnp.result_type(x, *there, result)
    y, batch = batch_norm(jnp.asarray(x, wide), scale, bias, layer.axis, layer.epsilon, layer.axis_name)
    return y.astype(result), batch
