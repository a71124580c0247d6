# SPDX-License-Identifier: Apache-2.0
"""flax.nnx's layer, trained by this library: a subclass with its arguments, variables and momentum."""

from __future__ import annotations

from typing import Any

import flax.nnx
import jax

from .functional import batch_norm


class BatchNorm(flax.nnx.BatchNorm):
    """flax.nnx.BatchNorm, by this library where it trains.

    Its variables are flax's: `scale` and `bias`, and `mean` and (biased) `var`, which keep their dtype and carry no
    gradient. The arguments are flax's, too: axis is -1, and momentum the weight of the old statistics. With running
    averages, a mask, several axes or axis_index_groups the call is flax's own. One value per channel is a ValueError in
    training.
    """

    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: jax.Array | None = None) -> Any:
        frozen = self.use_running_average if use_running_average is None else use_running_average
        is_own = isinstance(self.axis, int) and mask is None and self.axis_index_groups is None
        if frozen is not False or not is_own:
            return super().__call__(x, use_running_average, mask=mask)
        running = self.mean, self.var
        given = x, *(None if each is None else each[...] for each in (*running, self.scale, self.bias))
        x, _, _, scale, bias = self.promote_dtype(given, dtype=self.dtype)
        y, batch = batch_norm(x, scale, bias, self.axis, self.epsilon, self.axis_name)
        for old, value in zip(running, batch):
            moved = self.momentum * old[...] + (1 - self.momentum) * value
            old[...] = jax.lax.stop_gradient(moved).astype(old.dtype)
        return y
