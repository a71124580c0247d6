# SPDX-License-Identifier: Apache-2.0
"""PyTorch: the layer in training and in evaluation, its state, and what it does at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import CASES, HALVES, Array, Batch, near, wide
from in_torch import array, tensor, torch

import batchnorm as bn

LAYERS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


def layers(batch: Batch, **told: Any) -> tuple[Any, Any]:
    """Ours and theirs with the batch's parameters and statistics, which go from theirs to ours as a state."""
    name = LAYERS[len(batch.shape)]
    told["eps"] = batch.eps
    theirs = getattr(torch.nn, name)(batch.channels, **told)
    theirs = theirs.to(tensor(batch.gamma).dtype)
    with torch.no_grad():
        if theirs.affine:
            theirs.weight.copy_(tensor(batch.gamma))
            theirs.bias.copy_(tensor(batch.beta))
        if theirs.track_running_stats:
            theirs.running_mean.copy_(tensor(batch.running_mean))
            theirs.running_var.copy_(tensor(batch.running_var))
    ours = getattr(bn, name)(batch.channels, dtype=batch.dtype, param_dtype=batch.param, **told)
    ours.load_state_dict({key: array(value).copy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def channels_last(x: Array) -> Array:
    return np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)


def compare_step(batch: Batch, ours: Any, theirs: Any, frozen: bool, computed: Any) -> None:
    """One call forward and one backward of both."""
    sizes = batch.sizes(frozen)
    told: dict[str, Any] = {"computed": computed, "count": batch.count}
    x = tensor(batch.x.copy("K"), gradient=True)
    theirs.zero_grad()
    y = theirs(x)
    y.backward(tensor(batch.dy))
    near(ours(batch.x), array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    if theirs.affine:
        near(ours.grad_gamma, array(theirs.weight.grad), size=sizes.dgamma, **told)
        near(ours.grad_beta, array(theirs.bias.grad), size=sizes.dbeta, **told)
    else:
        assert ours.grad_gamma is None
    if theirs.track_running_stats:
        near(ours.running_mean, array(theirs.running_mean), size=sizes.mean, **told)
        near(ours.running_var, array(theirs.running_var), size=sizes.var, **told)
        assert ours.num_batches_tracked == int(theirs.num_batches_tracked)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_layer(rng: np.random.Generator, dtype: str, case: int) -> None:
    batch = Batch(rng, dtype)
    momentum = None if rng.random() < 0.3 else batch.momentum
    affine, tracking = (bool(rng.random() < 0.7) for _ in range(2))
    lies_last = bool(rng.random() < 0.5)
    print(f"momentum {momentum}, affine {affine}, tracking {tracking}, channels last {lies_last}")
    ours, theirs = layers(batch, momentum=momentum, affine=affine, track_running_stats=tracking)
    if not affine:
        batch.gamma, batch.beta = np.ones_like(batch.gamma), np.zeros_like(batch.beta)
    step = batch
    for _ in range(3):
        if lies_last:
            step.x, step.dy = channels_last(step.x), channels_last(step.dy)
        compare_step(step, ours, theirs, False, step.dtype)
        step = Batch(rng, dtype, ranks=(len(batch.shape),), channels=batch.channels)
        step.eps, step.gamma, step.beta = batch.eps, batch.gamma, batch.beta
    ours.eval()
    theirs.eval()
    if tracking:
        step.running_mean, step.running_var = ours.running_mean.copy(), ours.running_var.copy()
    compare_step(step, ours, theirs, tracking, step.dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("same", [False, True], ids=["float32 parameters", "parameters alike"])
@pytest.mark.parametrize("case", CASES)
def test_layer_of_halves(rng: np.random.Generator, dtype: str, same: bool, case: int) -> None:
    batch = Batch(rng, dtype, param=dtype if same else "float32")
    ours, theirs = layers(batch, momentum=batch.momentum)
    # With parameters alike PyTorch rounds what it has computed per channel to them: before backward the mean and the
    # inverse standard deviation, in evaluation the factor and the summand.
    computed = batch.dtype if same else wide(batch.dtype)
    compare_step(batch, ours, theirs, False, computed)
    ours.eval()
    theirs.eval()
    batch.running_mean, batch.running_var = ours.running_mean.copy(), ours.running_var.copy()
    compare_step(batch, ours, theirs, True, computed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(4))
def test_statistics_of_the_operator(rng: np.random.Generator, dtype: str, case: int) -> None:
    batch = Batch(rng, dtype)
    given = batch.arrays()
    running = [tensor(given[name].copy()) for name in ("running_mean", "running_var")]
    parameters = tensor(given["gamma"]), tensor(given["beta"])
    y, mean, invstd = torch.native_batch_norm(tensor(batch.x), *parameters, *running, True, batch.momentum, batch.eps)
    ours, saved = bn.forward_training(batch.x, **given, momentum=batch.momentum, eps=batch.eps)
    sizes = batch.sizes()
    told: dict[str, Any] = {"computed": batch.dtype, "count": batch.count}
    near(ours, array(y), size=sizes.y, **told)
    near(saved.mean, array(mean), size=sizes.mean, **told)
    near(saved.invstd, array(invstd), size=saved.invstd, **told)
    near(given["running_mean"], array(running[0]), size=sizes.mean, **told)
    near(given["running_var"], array(running[1]), size=sizes.var, **told)


@pytest.mark.parametrize("case", range(4))
def test_gradients_of_gradients_are_those_of_our_backward(rng: np.random.Generator, case: int) -> None:
    """dx is linear in dy: its transpose, which PyTorch has as a double backward, is dx with the roles exchanged."""
    batch = Batch(rng, "float64")
    x, dy = tensor(batch.x, gradient=True), tensor(batch.dy.copy(), gradient=True)
    y = torch.nn.functional.batch_norm(x, None, None, tensor(batch.gamma), None, True, eps=batch.eps)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    u = rng.normal(size=batch.shape)
    (by_dy,) = torch.autograd.grad(dx, dy, tensor(u))
    _, saved = bn.forward_training(batch.x, batch.gamma, eps=batch.eps)
    sizes = batch.sizes()
    near(bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma)[0], array(dx), np.float64, sizes.dx, batch.count)
    batch.dy = u
    size = batch.sizes().dx
    near(bn.backward(u, batch.x, saved, gamma=batch.gamma)[0], array(by_dy), np.float64, size, batch.count)


def test_one_value_per_channel_is_refused_in_training_by_both() -> None:
    ours, theirs, x = bn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match="value"):
        ours(x)
    with pytest.raises(ValueError, match="value"):
        theirs(tensor(x))
    assert np.array_equal(ours.eval()(x), array(theirs.eval()(tensor(x))))


def test_an_empty_batch_leaves_the_statistics_to_both() -> None:
    ours, theirs = bn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = np.zeros((0, 3, 2, 2), np.float32)
    assert ours(x).shape == tuple(theirs(tensor(x)).shape)
    assert np.array_equal(ours.running_mean, array(theirs.running_mean))
    assert np.array_equal(ours.running_var, array(theirs.running_var))


def test_a_constant_channel_without_eps_is_beta_to_both() -> None:
    x = np.full((4, 3, 2), 2.5, np.float32)
    beta = np.array([1, 2, 3], np.float32)
    # The function that calls this operator refuses an eps of 0 in training.
    y, _, invstd = torch.native_batch_norm(tensor(x), None, tensor(beta), None, None, True, 0.1, 0.0)
    ours, saved = bn.forward_training(x, None, beta, eps=0)
    assert np.array_equal(ours, array(y))
    assert np.array_equal(saved.invstd, array(invstd))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", range(4))
def test_the_function_with_the_same_arguments(rng: np.random.Generator, training: bool, case: int) -> None:
    batch = Batch(rng, "float64")
    names = ("running_mean", "running_var", "gamma", "beta")
    arrays = [batch.arrays()[name] for name in names]
    tensors = [tensor(array.copy()) for array in arrays]
    y = torch.nn.functional.batch_norm(tensor(batch.x), *tensors, training, batch.momentum, batch.eps)
    sizes = batch.sizes(not training)
    ours = bn.batch_norm(batch.x, *arrays, training, batch.momentum, batch.eps)
    near(ours, array(y), np.float64, sizes.y, batch.count)
    for mine, theirs in zip(arrays, tensors):
        np.testing.assert_allclose(mine, array(theirs), rtol=1e-12, atol=1e-12)
    with pytest.raises(TypeError):
        torch.nn.functional.batch_norm(tensor(batch.x), *tensors, True, None)
