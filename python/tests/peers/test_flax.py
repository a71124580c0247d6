# SPDX-License-Identifier: Apache-2.0
"""flax: BatchNorm of linen and of nnx, on any axis, on several, with a mask; its variance is the biased one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Batch, near, peer, wide
from in_jax import gradients, jnp
from ml_dtypes import finfo

import batchnorm as bn

linen = peer("flax.linen")
nnx = peer("flax.nnx")


def compare(batch: Batch, ours: tuple[Any, Any], theirs: tuple[Any, Any], sizes: Any) -> None:
    """y, and the gradients with respect to x, gamma and beta."""
    computed, count = wide(batch.dtype), batch.count
    near(ours[0], theirs[0], computed, sizes.y, count)
    # JAX adds the terms of dx up in x's dtype: by way of x itself, of the mean and of the variance.
    terms = sizes.term * float(finfo(batch.dtype).eps / finfo(computed).eps)
    for mine, other, size in zip(ours[1], theirs[1], (sizes.dx + terms, sizes.dgamma, sizes.dbeta)):
        near(mine, other, computed, size, count)


def linen_call(batch: Batch, module: Any, **told: Any) -> Any:
    """A function of x, gamma and beta that gives y and the new running statistics."""
    statistics = {"mean": batch.running_mean, "var": batch.running_var}

    def call(x: Any, gamma: Any, beta: Any) -> Any:
        variables = {"params": {"scale": gamma, "bias": beta}, "batch_stats": statistics}
        y, updated = module.apply(variables, x, mutable=["batch_stats"], **told)
        return y, updated["batch_stats"]

    return call


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_linen_training(rng: np.random.Generator, dtype: str, masked: bool, case: int) -> None:
    batch = Batch(rng, dtype, axis="any")
    squares = bool(rng.random() < 0.5)
    decay = round(1 - batch.momentum, 2)
    mask = None
    if masked:
        mask = rng.random([1 if a == batch.axis else n for a, n in enumerate(batch.shape)]) < 0.7
        mask.flat[:3] = True
    print(f"E[x^2] - E[x]^2 {squares}")
    module = linen.BatchNorm(
        use_running_average=False,
        axis=batch.axis,
        momentum=decay,
        epsilon=batch.eps,
        dtype=batch.dtype,
        use_fast_variance=squares,
    )
    call = linen_call(batch, module, mask=mask)
    y, updated, found = gradients(call, batch.dy, batch.x, batch.gamma, batch.beta)

    given = batch.arrays()
    told: dict[str, Any] = {"axis": batch.axis, "decay": decay, "eps": batch.eps, "unbiased": False, "weights": mask}
    ours, saved = bn.forward_training(batch.x, **given, **told)
    sizes = batch.sizes(squares=squares, mask=True if mask is None else mask)
    compare(batch, (ours, bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma, axis=batch.axis)), (y, found), sizes)
    near(given["running_mean"], np.asarray(updated["mean"]), batch.param, sizes.mean, batch.count)
    near(given["running_var"], np.asarray(updated["var"]), batch.param, sizes.var, batch.count)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linen_inference(rng: np.random.Generator, dtype: str) -> None:
    batch = Batch(rng, dtype, axis="any")
    module = linen.BatchNorm(use_running_average=True, axis=batch.axis, epsilon=batch.eps, dtype=batch.dtype)
    y, _, found = gradients(linen_call(batch, module), batch.dy, batch.x, batch.gamma, batch.beta)
    ours = bn.forward_inference(batch.x, **batch.arrays(), axis=batch.axis, eps=batch.eps)
    saved = bn.frozen_statistics(batch.running_mean, batch.running_var, batch.eps)
    sizes = batch.sizes(frozen=True)
    compare(batch, (ours, bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma, axis=batch.axis)), (y, found), sizes)


@pytest.mark.parametrize("axes", [(1, 2), (0, 1), (-2, -1)])
def test_linen_with_several_feature_axes(rng: np.random.Generator, axes: tuple[int, int]) -> None:
    x, dy = rng.normal(size=(2, 6, 4, 5, 3))
    features = tuple(x.shape[a] for a in axes)
    gamma, beta, mean = rng.normal(size=(3, *features))
    var = rng.uniform(0.5, 2, features)
    module = linen.BatchNorm(use_running_average=False, axis=axes, momentum=0.75, use_fast_variance=False)

    def call(x: Any, gamma: Any, beta: Any) -> Any:
        variables = {"params": {"scale": gamma, "bias": beta}, "batch_stats": {"mean": mean, "var": var}}
        y, updated = module.apply(variables, x, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    y, updated, found = gradients(call, dy, x, gamma, beta)
    new_mean, new_var = mean.copy(), var.copy()
    told: dict[str, Any] = {"axis": axes, "decay": 0.75, "unbiased": False}
    ours, saved = bn.forward_training(x, gamma, beta, running_mean=new_mean, running_var=new_var, **told)
    # There are 12 or more values of a standard normal distribution: no term is above 100, and no sum above 1000.
    for mine, theirs in zip((ours, *bn.backward(dy, x, saved, gamma=gamma, axis=axes)), (y, *found)):
        near(mine, theirs, np.float64, 1000)
    near(new_mean, np.asarray(updated["mean"]), np.float64, 10)
    near(new_var, np.asarray(updated["var"]), np.float64, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(2))
def test_nnx(rng: np.random.Generator, dtype: str, case: int) -> None:
    """A layer of nnx beside one of ours, over steps of training and in evaluation, with a mask and without."""
    batch = Batch(rng, dtype, axis="any")
    decay = round(1 - batch.momentum, 2)
    theirs = nnx.BatchNorm(
        batch.channels,
        axis=batch.axis,
        momentum=decay,
        epsilon=batch.eps,
        param_dtype=batch.dtype,
        use_fast_variance=False,
        rngs=nnx.Rngs(0),
    )
    theirs.mean, theirs.var = (nnx.BatchStat(jnp.asarray(a)) for a in (batch.running_mean, batch.running_var))
    theirs.scale, theirs.bias = (nnx.Param(jnp.asarray(a)) for a in (batch.gamma, batch.beta))
    ours = bn.BatchNorm(batch.channels, batch.eps, axis=batch.axis, dtype=dtype, decay=decay, unbiased=False)
    for name, value in batch.arrays().items():
        setattr(ours, name, value)
    for step in range(2):
        x = batch.x + batch.dtype.type(step)
        mask = None if step else rng.random([1 if a == batch.axis else n for a, n in enumerate(batch.shape)]) < 0.7
        if mask is not None:
            mask.flat[:3] = True
        sizes = batch.sizes(mask=True if mask is None else mask)
        near(ours(x, weights=mask), np.asarray(theirs(jnp.asarray(x), mask=mask)), dtype, sizes.y * 2, batch.count)
        near(ours.running_mean, np.asarray(theirs.mean[...]), dtype, sizes.mean, batch.count)
        near(ours.running_var, np.asarray(theirs.var[...]), dtype, sizes.var + 4, batch.count)
    ours.eval()
    y = np.asarray(theirs(jnp.asarray(batch.x), use_running_average=True))
    batch.running_mean, batch.running_var = ours.running_mean, ours.running_var
    near(ours(batch.x), y, dtype, batch.sizes(frozen=True).y, batch.count)
