# SPDX-License-Identifier: Apache-2.0
"""equinox: both of its modes, over steps of training, with gradients, and in inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Array, Batch, near, peer
from in_jax import gradients, jax, jnp

import batchnorm as bn

eqx = peer("equinox")


class Pair:
    """A layer of equinox, which vmap gives one sample at a time, and its state; beside it one of ours."""

    def __init__(self, batch: Batch, mode: str, **told: Any) -> None:
        self.batch = batch
        self.decay = round(1 - batch.momentum, 2)
        dtype = jnp.dtype(batch.dtype)
        made = eqx.nn.BatchNorm(batch.channels, "batch", batch.eps, momentum=self.decay, dtype=dtype, mode=mode)
        self.theirs, self.state = made, eqx.nn.State(made)
        self.ours = bn.BatchNorm(
            batch.channels, eps=batch.eps, decay=self.decay, unbiased=False, dtype=batch.dtype, **told
        )
        self.ours.gamma, self.ours.beta = batch.gamma, batch.beta

    def call(self, x: Any, gamma: Any, beta: Any, inference: bool = False) -> Any:
        layer = eqx.tree_at(lambda each: (each.weight, each.bias), self.theirs, (gamma, beta))
        layer = eqx.nn.inference_mode(layer, inference)
        return jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, self.state)

    def step(self, sizes: Any) -> None:
        """One step of training of both; the sizes are those of what is normalized with."""
        batch = self.batch
        y, self.state, found = gradients(self.call, batch.dy, batch.x, batch.gamma, batch.beta)
        told: dict[str, Any] = {"computed": batch.dtype, "count": batch.count}
        near(self.ours(batch.x), y, size=sizes.y, **told)
        near(self.ours.backward(batch.dy), found[0], size=sizes.dx, **told)
        near(self.ours.grad_gamma, found[1], size=sizes.dgamma, **told)
        near(self.ours.grad_beta, found[2], size=sizes.dbeta, **told)

    def inference(self) -> tuple[Array, Array]:
        """y of both."""
        batch = self.batch
        theirs, _ = self.call(batch.x, batch.gamma, batch.beta, inference=True)
        return self.ours.eval()(batch.x), np.asarray(theirs)


def following(rng: np.random.Generator, batch: Batch) -> Batch:
    """Another batch for the same layer."""
    step = Batch(rng, str(batch.dtype), ranks=(len(batch.shape),), channels=batch.channels)
    step.x = (step.x - step.x.mean(step.over, keepdims=True)).astype(batch.dtype)
    step.gamma, step.beta, step.eps = batch.gamma, batch.beta, batch.eps
    return step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(2))
def test_ema(rng: np.random.Generator, dtype: str, case: int) -> None:
    """It normalizes, also in training, with the running statistics after their update, which the first batch fills."""
    batch = Batch(rng, dtype)
    pair = Pair(batch, "ema", source=bn.Updated(), running=bn.Running("filled"))
    for _ in range(3):
        # The variance in use counts, which lies between those of the batches.
        sizes = pair.batch.sizes()
        pair.step(of_both(sizes, pair))
        mean, var = pair.state.get(pair.theirs.ema_state_index)
        near(pair.ours.running_mean, np.asarray(mean), dtype, sizes.mean + abs(mean), batch.count)
        near(pair.ours.running_var, np.asarray(var), dtype, sizes.var + var, batch.count)
        pair.batch = following(rng, batch)
    pair.batch.running_mean, pair.batch.running_var = pair.ours.running_mean, pair.ours.running_var
    ours, theirs = pair.inference()
    near(ours, theirs, dtype, pair.batch.sizes(frozen=True).y, batch.count)


def of_both(sizes: Any, pair: Pair) -> Any:
    """The larger of the sizes of the batch's statistics and of the running ones."""
    batch = pair.batch
    if pair.ours.num_batches_tracked:
        batch.running_mean, batch.running_var = pair.ours.running_mean.copy(), pair.ours.running_var.copy()
        other = batch.sizes(frozen=True)
        for name, value in vars(sizes).items():
            setattr(sizes, name, np.maximum(value, getattr(other, name)))
    return sizes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(2))
def test_batch(rng: np.random.Generator, dtype: str, case: int) -> None:
    """In training it is the usual layer, whose running statistics are "debiased".

    Its variance starts from 1 instead of 0 and is divided all the same: it is larger by decay^n / (1 - decay^n).
    """
    batch = Batch(rng, dtype)
    pair = Pair(batch, "batch", running=bn.Running("debiased"))
    for n in range(1, 4):
        pair.step(pair.batch.sizes())
        weight = 1 - pair.decay**n
        mean, var = (np.asarray(each) / weight for each in pair.state.get(pair.theirs.batch_state_index))
        sizes = pair.batch.sizes()
        near(pair.ours.running_mean, mean, dtype, sizes.mean + abs(mean) / weight, batch.count)
        too_much = pair.decay**n / weight
        near(pair.ours.running_var + too_much, var, dtype, sizes.var + var / weight, batch.count)
        pair.batch = following(rng, batch)
    pair.ours.running_var[...] += too_much
    pair.batch.running_mean, pair.batch.running_var = pair.ours.running_mean, pair.ours.running_var
    ours, theirs = pair.inference()
    near(ours, theirs, dtype, pair.batch.sizes(frozen=True).y / weight, batch.count)
