# SPDX-License-Identifier: Apache-2.0
"""haiku: BatchNorm, whose running statistics are as if nothing had been before the first batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Batch, near, peer
from in_jax import gradients, jax

import batchnorm as bn

haiku = peer("haiku")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_training_and_inference(rng: np.random.Generator, data_format: str, dtype: str) -> None:
    axis = "first" if data_format == "channels_first" else "last"
    batch = Batch(rng, dtype, axis)
    decay = round(1 - batch.momentum, 2)

    def network(x: Any, gamma: Any, beta: Any, is_training: bool) -> Any:
        layer = haiku.BatchNorm(False, False, decay, batch.eps, data_format=data_format)
        spread = [1 if a != batch.axis else -1 for a in range(len(batch.shape))]
        return layer(x, is_training, scale=gamma.reshape(spread), offset=beta.reshape(spread))

    made = haiku.without_apply_rng(haiku.transform_with_state(network))
    _, state = made.init(jax.random.PRNGKey(0), batch.x, batch.gamma, batch.beta, True)
    state = jax.tree_util.tree_map(lambda each: each * 0, state)  # init() has counted its x
    ours = bn.BatchNorm(
        batch.channels,
        batch.eps,
        axis=batch.axis,
        decay=decay,
        unbiased=False,
        dtype=dtype,
        running=bn.Running("debiased"),
    )
    ours.gamma, ours.beta = batch.gamma, batch.beta
    step = batch
    for n in range(1, 4):

        def call(x: Any, gamma: Any, beta: Any, state: Any = state) -> Any:
            return made.apply({}, state, x, gamma, beta, True)

        y, state, found = gradients(call, step.dy, step.x, batch.gamma, batch.beta)
        sizes = step.sizes(squares=True)
        told: dict[str, Any] = {"computed": dtype, "count": step.count}
        near(ours(step.x), y, size=sizes.y, **told)
        near(ours.backward(step.dy), found[0], size=sizes.dx, **told)
        near(ours.grad_gamma, found[1], size=sizes.dgamma, **told)
        near(ours.grad_beta, found[2], size=sizes.dbeta, **told)
        weight = 1 - decay**n
        for name, key, size in (("running_mean", "mean", sizes.mean), ("running_var", "var", sizes.var)):
            average = np.asarray(state[f"batch_norm/~/{key}_ema"]["average"]).ravel()
            near(getattr(ours, name), average, size=(size + abs(average)) / weight, **told)
        step = Batch(rng, dtype, axis, ranks=(len(batch.shape),), channels=batch.channels)
        step.eps, step.gamma, step.beta = batch.eps, batch.gamma, batch.beta
    y, _ = made.apply({}, state, step.x, batch.gamma, batch.beta, False)
    step.running_mean, step.running_var = ours.running_mean, ours.running_var
    near(ours.eval()(step.x), np.asarray(y), size=step.sizes(frozen=True).y / weight, computed=dtype, count=step.count)
