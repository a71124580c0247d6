# SPDX-License-Identifier: Apache-2.0
"""timm: batch norm with an activation, split over slices of the batch, and frozen."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from comparing import Batch, near, peer
from in_torch import array, tensor, torch

import batchnorm as bn

importlib.import_module("in_torchvision")
layers = peer("timm.layers")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activation(rng: np.random.Generator, dtype: str) -> None:
    batch = Batch(rng, dtype, ranks=(4,))
    theirs = layers.BatchNormAct2d(batch.channels, batch.eps, batch.momentum, act_layer=torch.nn.SiLU)
    ours = bn.BatchNorm2d(batch.channels, batch.eps, batch.momentum, dtype=dtype, activation="silu")
    theirs = theirs.to(tensor(batch.gamma).dtype)
    state = {"weight": batch.gamma, "bias": batch.beta}
    state.update(running_mean=batch.running_mean, running_var=batch.running_var)
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x)
    y.backward(tensor(batch.dy))
    sizes = batch.sizes()
    told: dict[str, Any] = {"computed": dtype, "count": batch.count}
    near(ours(batch.x), array(y), size=sizes.y + 1, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    near(ours.grad_gamma, array(theirs.weight.grad), size=sizes.dgamma, **told)
    near(ours.grad_beta, array(theirs.bias.grad), size=sizes.dbeta, **told)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_split(rng: np.random.Generator, dtype: str) -> None:
    batch = Batch(rng, dtype, ranks=(4,))
    n = len(batch.x) // 2
    batch.x, batch.dy = batch.x[: 2 * n], batch.dy[: 2 * n]
    batch.x[n:] = batch.x[:n][::-1] * batch.dtype.type(1.5)
    theirs = layers.SplitBatchNorm2d(batch.channels, batch.eps, batch.momentum).to(tensor(batch.gamma).dtype)
    ours = bn.BatchNorm2d(batch.channels, batch.eps, batch.momentum, dtype=dtype, groups=bn.Split(2))
    of_slices = np.array([[1], [0.75]])
    rows = {name: (of_slices * value).astype(dtype) for name, value in batch.arrays().items()}
    slices = theirs, theirs.aux_bn[0]
    for name, value in rows.items():
        setattr(ours, name, value.copy())
        key = {"gamma": "weight", "beta": "bias"}.get(name, name)
        with torch.no_grad():
            for layer, row in zip(slices, value):
                getattr(layer, key).copy_(tensor(row.copy()))
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x)
    y.backward(tensor(batch.dy))
    sizes = batch.sizes()
    told: dict[str, Any] = {"computed": dtype, "count": batch.count, "times": 64}
    near(ours(batch.x), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    near(ours.grad_gamma, np.stack([array(each.weight.grad) for each in slices]), size=sizes.dgamma, **told)
    near(ours.grad_beta, np.stack([array(each.bias.grad) for each in slices]), size=sizes.dbeta, **told)
    near(ours.running_var, np.stack([array(each.running_var) for each in slices]), size=4 * sizes.var + 4, **told)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frozen(rng: np.random.Generator, dtype: str) -> None:
    batch = Batch(rng, dtype, ranks=(4,))
    theirs = layers.FrozenBatchNormAct2d(batch.channels, batch.eps).to(tensor(batch.gamma).dtype)
    ours = bn.BatchNorm2d(batch.channels, batch.eps, dtype=dtype, activation="relu", frozen=True)
    for name, value in batch.arrays().items():
        setattr(ours, name, value)
        getattr(theirs, {"gamma": "weight", "beta": "bias"}.get(name, name)).copy_(tensor(value))
    x = tensor(batch.x.copy(), gradient=True)
    y = theirs(x)
    # Rounding may decide on which side of 0 a y lies that is next to it.
    batch.dy[(array(y) < 1e-3) & (ours(batch.x) > -1e-3)] = 0
    y.backward(tensor(batch.dy))
    sizes = batch.sizes(frozen=True)
    told: dict[str, Any] = {"computed": dtype, "count": batch.count}
    near(ours(batch.x), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
