# SPDX-License-Identifier: Apache-2.0
"""Keras, over PyTorch: axis, momentum and epsilon, centre and scale, masks, layers that are not trainable, renorm."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Batch, near, peer
from in_torch import array, tensor
from ml_dtypes import finfo

import batchnorm as bn

os.environ["KERAS_BACKEND"] = "torch"
keras = peer("keras")

COMPUTED = np.float32  # of any dtype: but with TensorFlow Keras knows no sums of float64

NAMES = {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def layers(batch: Batch, center: bool = True, scale: bool = True, **told: Any) -> tuple[Any, Any]:
    """Ours and theirs with the batch's parameters and statistics; what is missing becomes 1 and 0 in the batch."""
    decay = round(1 - batch.momentum, 2)
    policy = f"mixed_{batch.dtype}" if batch.dtype != batch.param else str(batch.dtype)
    theirs = keras.layers.BatchNormalization(
        axis=batch.axis, momentum=decay, epsilon=batch.eps, center=center, scale=scale, dtype=policy, **told
    )
    theirs.build(batch.shape)
    ours = bn.BatchNorm(batch.channels, batch.eps, axis=batch.axis, decay=decay, unbiased=False, dtype=batch.dtype)
    if not scale:
        batch.gamma = np.ones_like(batch.gamma)
    if not center:
        batch.beta = np.zeros_like(batch.beta)
    for name, value in batch.arrays().items():
        if getattr(theirs, NAMES[name]) is not None:
            getattr(theirs, NAMES[name]).assign(value)
        setattr(ours, name, value)
    if not scale:
        ours.gamma = None
    if not center:
        ours.beta = None
    return ours, theirs


def compare(batch: Batch, ours: Any, theirs: Any, sizes: Any, mask: Any = None, training: bool = True) -> None:
    """One call, its gradients, and the running statistics after it."""
    theirs.zero_grad()
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x, training=training, mask=None if mask is None else tensor(mask[..., 0]))
    y.backward(tensor(batch.dy))
    told: dict[str, Any] = {"computed": COMPUTED, "count": batch.count}
    near(ours(batch.x, weights=mask), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    of_parameters = (ours.grad_gamma, theirs.gamma, sizes.dgamma), (ours.grad_beta, theirs.beta, sizes.dbeta)
    for mine, variable, size in of_parameters:
        if variable is not None and variable.trainable:
            near(mine, array(variable.value.grad), size=size, **told)
    compare_running(batch, ours, theirs, sizes)


def compare_running(batch: Batch, ours: Any, theirs: Any, sizes: Any) -> None:
    told: dict[str, Any] = {"computed": COMPUTED, "count": batch.count}
    near(ours.running_mean, array(theirs.moving_mean.value), size=sizes.mean, **told)
    near(ours.running_var, array(theirs.moving_variance.value), size=sizes.var + 4, **told)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(6))
def test_layer(rng: np.random.Generator, dtype: str, case: int) -> None:
    """Two steps of training, then inference."""
    batch = Batch(rng, dtype, axis="any")
    center, scale = (bool(rng.random() < 0.7) for _ in range(2))
    print(f"center {center}, scale {scale}")
    ours, theirs = layers(batch, center, scale)
    for _ in range(2):
        # The variance is E[x^2] - E[x]^2.
        compare(batch, ours, theirs, batch.sizes(squares=True))
    ours.eval()
    batch.running_mean, batch.running_var = ours.running_mean.copy(), ours.running_var.copy()
    compare(batch, ours, theirs, batch.sizes(frozen=True), training=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(6))
def test_mask(rng: np.random.Generator, dtype: str, case: int) -> None:
    """Channels are last then. Masked positions are normalized all the same, and have a gradient."""
    # Keras squeezes the axis of a single channel, too, and then has none.
    batch = Batch(rng, dtype, axis="last", channels=int(rng.integers(2, 20)))
    mask = rng.random((*batch.shape[:-1], 1)) < 0.6
    mask.flat[:3] = True
    ours, theirs = layers(batch)
    sizes = batch.sizes(mask=mask)
    # Sums are divided by the count plus 1e-7: a relative error of that size in mean and variance.
    more = 1e-7 / float(finfo(COMPUTED).eps) / mask.sum()
    for name, value in vars(sizes).items():
        setattr(sizes, name, value * (1 + more))
    compare(batch, ours, theirs, sizes, mask)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(3))
def test_a_layer_that_is_not_trainable(rng: np.random.Generator, dtype: str, case: int) -> None:
    """In training it normalizes with the moving statistics, which stay as they are: ours with `frozen`."""
    batch = Batch(rng, dtype, axis="any")
    ours, theirs = layers(batch)
    theirs.trainable, ours.frozen = False, True
    compare(batch, ours, theirs, batch.sizes(frozen=True))
    assert np.array_equal(ours.running_mean, batch.running_mean)
    assert np.array_equal(array(theirs.moving_mean.value), batch.running_mean)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("case", range(3))
def test_renorm(rng: np.random.Generator, dtype: str, clipped: bool, case: int) -> None:
    """Keras keeps a mean and a standard deviation of their own for r and d, which are our running statistics here."""
    batch = Batch(rng, dtype, axis="any")
    limits = {"rmax": 1.5, "rmin": 0.5, "dmax": 0.75} if clipped else {}
    ours, theirs = layers(batch, renorm=True, renorm_clipping=limits or None)
    theirs.renorm_mean.assign(batch.running_mean)
    theirs.renorm_stddev.assign(np.sqrt(batch.running_var + batch.dtype.type(batch.eps)))
    ours.source = bn.Renorm(limits.get("rmax", np.inf), limits.get("dmax", np.inf), limits.get("rmin", 0.0))
    sizes, other = batch.sizes(squares=True), batch.sizes(frozen=True)
    # r and d magnify what there is by up to the ratio of the standard deviations.
    for name, value in vars(sizes).items():
        setattr(sizes, name, value + 4 * getattr(other, name))
    theirs.zero_grad()
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x, training=True)
    y.backward(tensor(batch.dy))
    told: dict[str, Any] = {"computed": COMPUTED, "count": batch.count}
    near(ours(batch.x), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    near(ours.grad_gamma, array(theirs.gamma.value.grad), size=sizes.dgamma, **told)
    near(ours.grad_beta, array(theirs.beta.value.grad), size=sizes.dbeta, **told)
    near(ours.running_mean, array(theirs.moving_mean.value), size=sizes.mean, **told)
