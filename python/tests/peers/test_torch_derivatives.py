# SPDX-License-Identifier: Apache-2.0
"""PyTorch: forward mode, and the gradients of a gradient, by its differentiation of its own batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import CASES, Array, Batch, near
from in_torch import array, exact, torch

import batchnorm as bn


def layer(batch: Batch, frozen: bool) -> Any:
    """Theirs as a function of x, gamma and beta."""
    running = (exact(batch.running_mean), exact(batch.running_var)) if frozen else (None, None)

    def call(x: Any, gamma: Any, beta: Any) -> Any:
        return torch.nn.functional.batch_norm(x, *running, gamma, beta, not frozen, 0.0, batch.eps)

    return call


def statistics(batch: Batch, frozen: bool) -> bn.SavedStatistics:
    if frozen:
        return bn.frozen_statistics(batch.running_mean, batch.running_var, batch.eps)
    return bn.forward_training(batch.x, batch.gamma, axis=batch.axis, eps=batch.eps)[1]


def directions(batch: Batch, rng: np.random.Generator) -> dict[str, Array]:
    vectors = {name: rng.normal(size=batch.channels).astype(batch.param) for name in ("gamma", "beta")}
    return {"x": rng.normal(size=batch.shape).astype(batch.dtype), **vectors}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_forward_mode(case: int, dtype: str, frozen: bool) -> None:
    rng = np.random.default_rng([5, case])
    batch = Batch(rng, dtype)
    to = directions(batch, rng)
    point = tuple(exact(a) for a in (batch.x, batch.gamma, batch.beta))
    _, theirs = torch.func.jvp(layer(batch, frozen), point, tuple(exact(to[name]) for name in ("x", "gamma", "beta")))
    tangents = {f"{name}_tangent": values for name, values in to.items()}
    ours = bn.jvp(batch.x, statistics(batch, frozen), gamma=batch.gamma, axis=batch.axis, **tangents)
    sizes = batch.sizes(frozen)
    size = (sizes.dx / abs(batch.dy).max() * 4 + sizes.y) * abs(to["x"]).max()
    near(ours, array(theirs).astype(batch.dtype), computed=batch.dtype, size=size, count=batch.count)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_double_backward(case: int, dtype: str, frozen: bool) -> None:
    rng = np.random.default_rng([6, case])
    batch = Batch(rng, dtype)
    to = directions(batch, rng)
    x, gamma, beta, dy = (exact(a, gradient=True) for a in (batch.x, batch.gamma, batch.beta, batch.dy))
    y = layer(batch, frozen)(x, gamma, beta)
    first = torch.autograd.grad(y, (x, gamma, beta), dy, create_graph=True)
    weights = [exact(to[name]) for name in ("x", "gamma", "beta")]
    second = torch.autograd.grad(first, (dy, x, gamma), weights, allow_unused=True)
    grads = dict(zip(("grad_dx", "grad_dgamma", "grad_dbeta"), to.values()))
    saved = statistics(batch, frozen)
    ours = bn.double_backward(batch.dy, batch.x, saved, gamma=batch.gamma, axis=batch.axis, **grads)
    sizes = batch.sizes(frozen)
    u = abs(to["x"].astype(float)).max()
    invstd = batch.spread(saved.invstd)
    hat = sizes.y.max()
    by_dy = (abs(batch.spread(batch.gamma.astype(float))) * invstd * u + 4) * (1 + hat) ** 2
    by_x = (abs(batch.spread(to["gamma"].astype(float))) + by_dy * invstd) * (1 + abs(batch.dy).max()) * (1 + hat) ** 3
    by_gamma = (abs(to["x"].astype(float)).sum(batch.over) * saved.invstd * abs(batch.dy).max()) * (1 + hat) ** 2
    told: dict[str, Any] = {"computed": batch.dtype, "count": batch.count}
    for mine, theirs, size in zip(ours, second, (by_dy, by_x, by_gamma)):
        near(mine, array(theirs).astype(mine.dtype), size=size, **told)


def test_what_pytorch_makes_of_a_gradient_penalty() -> None:
    """A training with ||dx||² needs the gradient of that with respect to the input and to gamma."""
    rng = np.random.default_rng(7)
    batch = Batch(rng, "float64")
    x, gamma = exact(batch.x, gradient=True), exact(batch.gamma, gradient=True)
    y = layer(batch, False)(x, gamma, exact(batch.beta))
    (dx,) = torch.autograd.grad(y, x, exact(batch.dy), create_graph=True)
    wanted = torch.autograd.grad((dx**2).sum(), (x, gamma))
    saved = statistics(batch, False)
    ours, _, _ = bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma, axis=batch.axis)
    _, grad_x, grad_gamma = bn.double_backward(
        batch.dy, batch.x, saved, gamma=batch.gamma, grad_dx=2 * ours, axis=batch.axis
    )
    np.testing.assert_allclose(grad_x, array(wanted[0]), rtol=1e-9, atol=1e-9 * abs(array(wanted[0])).max())
    np.testing.assert_allclose(grad_gamma, array(wanted[1]), rtol=1e-9)
