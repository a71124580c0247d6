# SPDX-License-Identifier: Apache-2.0
"""PyTorch's autograd behind what follows normalization: activations, residuals, frozen layers, gradients from y alone.

PyTorch computes in float64 on the numbers that this library is given in any dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Batch, near, wide
from in_torch import array, exact, torch
from ml_dtypes import finfo

import batchnorm as bn

functional = torch.nn.functional

# Ours, theirs, and where the slope jumps.
ACTIVATIONS: dict[str, tuple[Any, Any, list[float]]] = {
    "none": (None, lambda u: u, []),
    "ReLU": ("relu", torch.nn.ReLU(), [0]),
    "LeakyReLU": (bn.LeakyReLU(), torch.nn.LeakyReLU(), [0]),
    "steeper LeakyReLU": (bn.LeakyReLU(0.25), torch.nn.LeakyReLU(0.25), [0]),
    "ReLU6": ("relu6", torch.nn.ReLU6(), [0, 6]),
    "Hardtanh": (bn.Clip(-0.5, 0.75), torch.nn.Hardtanh(-0.5, 0.75), [-0.5, 0.75]),
    "Hardswish": ("hard_swish", torch.nn.Hardswish(), [-3, 3]),
    "SiLU": ("silu", torch.nn.SiLU(), []),
}


class Expected:
    """y and all gradients of activation(batch_norm(x) + z), by PyTorch; dy becomes 0 where u is next to a jump."""

    def __init__(self, batch: Batch, activation: str, residual: Any = None, frozen: bool = False) -> None:
        _, function, jumps = ACTIVATIONS[activation]
        x, gamma, beta = (exact(a, gradient=True) for a in (batch.x, batch.gamma, batch.beta))
        running = [exact(a) for a in (batch.running_mean, batch.running_var)]
        u = functional.batch_norm(x, *running, gamma, beta, not frozen, batch.momentum, batch.eps)
        z = None if residual is None else exact(residual, gradient=True)
        u = u if z is None else u + z
        for jump in jumps:
            # Rounding may decide on which side of a jump a value lies.
            batch.dy[abs(array(u) - jump) < 4e-3 * (1 + abs(jump))] = 0
        y = function(u)
        y.backward(exact(batch.dy))
        self.y, self.dx, self.dgamma, self.dbeta = array(y), array(x.grad), array(gamma.grad), array(beta.grad)
        self.dz = None if z is None else array(z.grad)
        self.running_mean, self.running_var = map(array, running)

    def compare(self, batch: Batch, y: Any, gradients: Any, frozen: bool = False, larger: Any = 0) -> None:
        """`larger` is added to the size of what the gradients' errors are proportional to."""
        sizes = batch.sizes(frozen)
        told: dict[str, Any] = {"computed": wide(batch.dtype), "count": batch.count_beside_float64}
        # The slopes of "hard_swish" and "silu" depend on u, and are at most 1.5.
        near(y, self.y, size=sizes.y + 4, **told)
        dx, dgamma, dbeta, *dz = gradients
        near(dx, self.dx, size=sizes.dx * (1 + larger), **told)
        near(dgamma, self.dgamma, size=sizes.dgamma * (1 + np.ravel(larger)), **told)
        near(dbeta, self.dbeta, size=sizes.dbeta, **told)
        assert len(dz) == (self.dz is not None)
        for each in dz:
            near(each, self.dz, size=abs(batch.dy.astype(float)) * (1 + sizes.y), **told)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", range(4))
def test_training(rng: np.random.Generator, activation: str, dtype: str, case: int) -> None:
    batch = Batch(rng, dtype)
    residual = rng.normal(size=batch.shape).astype(batch.dtype) if rng.random() < 0.6 else None
    mask = activation not in ("Hardswish", "SiLU") and bool(rng.random() < 0.5)
    print(f"residual {residual is not None}, mask {mask}")
    expected, given = Expected(batch, activation, residual), batch.arrays()
    told: dict[str, Any] = {"activation": ACTIVATIONS[activation][0], "residual": residual, "save_mask": mask}
    y, saved = bn.forward_training(batch.x, **given, momentum=batch.momentum, eps=batch.eps, **told)
    expected.compare(batch, y, bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma))
    sizes = batch.sizes()
    near(given["running_mean"], expected.running_mean, batch.param, sizes.mean, batch.count_beside_float64)
    near(given["running_var"], expected.running_var, batch.param, sizes.var, batch.count_beside_float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_inference_has_gradients(rng: np.random.Generator, activation: str, dtype: str) -> None:
    batch = Batch(rng, dtype)
    residual = rng.normal(size=batch.shape).astype(batch.dtype) if rng.random() < 0.5 else None
    expected = Expected(batch, activation, residual, frozen=True)
    told: dict[str, Any] = {"activation": ACTIVATIONS[activation][0], "residual": residual}
    y = bn.forward_inference(batch.x, **batch.arrays(), eps=batch.eps, **told)
    saved = bn.frozen_statistics(batch.running_mean, batch.running_var, batch.eps, beta=batch.beta, **told)
    expected.compare(batch, y, bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma), frozen=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_frozen_layer(rng: np.random.Generator, activation: str, dtype: str) -> None:
    """In training, too, it is PyTorch's layer in evaluation."""
    batch = Batch(rng, dtype, ranks=(4,))
    residual = rng.normal(size=batch.shape).astype(batch.dtype)
    expected = Expected(batch, activation, residual, frozen=True)
    chosen = ACTIVATIONS[activation][0]
    layer = bn.BatchNorm2d(batch.channels, batch.eps, dtype=batch.dtype, activation=chosen, frozen=True)
    for name, value in batch.arrays().items():
        setattr(layer, name, value)
    y = layer(batch.x, residual=residual)
    gradients = layer.backward(batch.dy), layer.grad_gamma, layer.grad_beta, layer.grad_residual
    expected.compare(batch, y, gradients, frozen=True)
    assert np.array_equal(layer.running_mean, batch.running_mean)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["none", "LeakyReLU", "steeper LeakyReLU"])
@pytest.mark.parametrize("case", range(4))
def test_from_the_output_alone(rng: np.random.Generator, activation: str, dtype: str, case: int) -> None:
    """inplace_abn writes y over x, too, and finds x_hat from y, which was rounded to its dtype."""
    batch = Batch(rng, dtype)
    expected = Expected(batch, activation)
    chosen = ACTIVATIONS[activation][0] or "identity"
    y = batch.x.copy()
    told: dict[str, Any] = {"eps": batch.eps, "activation": chosen, "out": y}
    _, saved = bn.forward_training(y, batch.gamma, batch.beta, **told)
    gradients = bn.backward(batch.dy, y, saved, gamma=batch.gamma, from_output=True)
    # The rounding of y is that of u, relative to u also after a division by the slope; x_hat is (u - beta) / gamma.
    gamma, beta = (batch.spread(abs(each.astype(float))) for each in (batch.gamma, batch.beta))
    u = abs(expected.y).max(batch.over, keepdims=True) / getattr(chosen, "slope", 1)
    lost = (u + beta) / gamma * float(finfo(batch.dtype).eps) / float(finfo(wide(batch.dtype)).eps)
    expected.compare(batch, y, gradients, larger=lost)


@pytest.mark.parametrize("activation", ["none", "LeakyReLU"])
def test_a_layer_in_place(rng: np.random.Generator, activation: str) -> None:
    batch = Batch(rng, "float64", ranks=(4,))
    expected = Expected(batch, activation)
    layer = bn.BatchNorm2d(
        batch.channels, batch.eps, dtype=batch.dtype, activation=ACTIVATIONS[activation][0] or "identity"
    )
    for name, value in batch.arrays().items():
        setattr(layer, name, value)
    x = batch.x.copy()
    y = layer(x, out=x)
    assert y is x
    gradients = layer.backward(batch.dy), layer.grad_gamma, layer.grad_beta
    expected.compare(batch, y, gradients, larger=1e3)
