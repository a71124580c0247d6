# SPDX-License-Identifier: Apache-2.0
"""torchvision: FrozenBatchNorm2d, and how a trained layer's state gets into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import CASES, Batch, near, peer
from in_torch import array, tensor, torch

import batchnorm as bn

peer("in_torchvision")
FrozenBatchNorm2d = peer("torchvision.ops").FrozenBatchNorm2d


def layers(batch: Batch) -> tuple[Any, Any]:
    """Theirs, and ours with the state of theirs."""
    theirs = FrozenBatchNorm2d(batch.channels, batch.eps).to(tensor(batch.gamma).dtype)
    names = {"gamma": "weight", "beta": "bias"}
    theirs.load_state_dict({names.get(name, name): tensor(value) for name, value in batch.arrays().items()})
    ours = bn.FrozenBatchNorm2d(batch.channels, batch.eps, batch.dtype, param_dtype=batch.param)
    ours.load_state_dict({key: array(value).copy() for key, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_layer(rng: np.random.Generator, dtype: str, case: int) -> None:
    batch = Batch(rng, dtype, ranks=(4,), param=dtype)
    ours, theirs = layers(batch)
    training = bool(rng.random() < 0.5)
    sizes = batch.sizes(frozen=True)
    told: dict[str, Any] = {"computed": batch.dtype}
    for _ in range(2):
        x = tensor(batch.x.copy(), gradient=True)
        y = theirs.train(training)(x)
        y.backward(tensor(batch.dy))
        near(ours.train(training)(batch.x), array(y), size=sizes.y, **told)
        near(ours.backward(batch.dy), array(x.grad), size=sizes.term, **told)
        assert ours.grad_gamma is ours.grad_beta is None
        for key, value in theirs.state_dict().items():
            assert np.array_equal(ours.state_dict()[key], array(value))
        training = not training


def test_a_new_layer_is_the_same() -> None:
    ours, theirs = bn.FrozenBatchNorm2d(3, 0.01), FrozenBatchNorm2d(3, 0.01)
    states = ours.state_dict(), theirs.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(np.array_equal(states[0][key], array(states[1][key])) for key in states[0])
    assert repr(ours) == repr(theirs)
    assert ours.eps == theirs.eps
    assert bn.FrozenBatchNorm2d(3).eps == FrozenBatchNorm2d(3).eps


@pytest.mark.parametrize("case", range(4))
def test_a_trained_layer_s_state_goes_in_without_its_count(rng: np.random.Generator, case: int) -> None:
    batch = Batch(rng, "float32", ranks=(4,))
    trained = torch.nn.BatchNorm2d(batch.channels, batch.eps)
    with torch.no_grad():
        trained.weight.copy_(tensor(batch.gamma))
    trained(tensor(batch.x))
    theirs = FrozenBatchNorm2d(batch.channels, batch.eps)
    theirs.load_state_dict(trained.state_dict())
    state = {key: array(value).copy() for key, value in trained.state_dict().items()}
    assert "num_batches_tracked" in state
    loaded, ours = bn.FrozenBatchNorm2d(batch.channels, batch.eps), bn.BatchNorm2d(batch.channels, batch.eps)
    loaded.load_state_dict(state)
    ours.load_state_dict(state)
    converted = bn.FrozenBatchNorm2d.convert(ours)
    batch.running_mean, batch.running_var, batch.beta = (state[k] for k in ("running_mean", "running_var", "bias"))
    for layer in (loaded, converted):
        y = array(theirs(tensor(batch.x)))
        near(layer(batch.x), y, computed=batch.dtype, size=batch.sizes(frozen=True).y)


def test_what_is_missing_is_refused_by_both() -> None:
    state = bn.FrozenBatchNorm2d(3).state_dict()
    del state["running_var"]
    with pytest.raises(KeyError, match="running_var"):
        bn.FrozenBatchNorm2d(3).load_state_dict(state)
    with pytest.raises(RuntimeError, match="running_var"):
        FrozenBatchNorm2d(3).load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
