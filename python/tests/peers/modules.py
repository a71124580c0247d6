# SPDX-License-Identifier: Apache-2.0
"""Layers of batchnorm.torch beside PyTorch's, for its tests: pairs in the same state, and steps of both."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from comparing import Batch, near, peer
from in_torch import array, tensor, torch

bt = peer("batchnorm.torch")

NAMES = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}
# The calls of the library: those of the operators, where these are installed.
WAY = bt.compiled if bt.operators.THERE else bt.calls
GRAD_FN = "CompiledBackward" if bt.operators.THERE else "EagerBackward"
LAST = {3: None, 4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture
def small() -> Any:
    """Small tensors are this library's as well."""
    bt.functional.set_smallest(0)
    yield
    bt.functional.set_smallest(None)


def pair(batch: Batch, **told: Any) -> tuple[Any, Any]:
    """Ours and theirs with the batch's parameters and statistics."""
    theirs = getattr(torch.nn, NAMES[len(batch.shape)])(batch.channels, eps=batch.eps, **told)
    theirs = theirs.to(tensor(batch.gamma).dtype)
    with torch.no_grad():
        if theirs.weight is not None:
            theirs.weight.copy_(tensor(batch.gamma))
        if theirs.bias is not None:
            theirs.bias.copy_(tensor(batch.beta))
        if theirs.running_mean is not None:
            theirs.running_mean.copy_(tensor(batch.running_mean))
            theirs.running_var.copy_(tensor(batch.running_var))
    return bt.convert(theirs, inplace=False), theirs


def lies(x: Any, layout: str) -> Any:
    """x in a memory order, or as it is where it has none of that name."""
    if layout == "channels last" and x.dim() > 2:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.contiguous()


def step(layer: Any, x: Any, dy: Any) -> dict[str, Any]:
    """One call forward and one backward: all that came of it."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(dy)
    found = {"y": y, "dx": x.grad}
    for name in ("weight", "bias"):
        parameter = getattr(layer, name)
        if parameter is not None:
            found["d" + name] = parameter.grad
    return found | {name: value.clone() for name, value in layer.named_buffers()}


def compare(batch: Batch, ours: dict[str, Any], theirs: dict[str, Any], frozen: bool = False) -> None:
    """Asserts that two steps differ by roundings alone; theirs may be of float64."""
    sizes = batch.sizes(frozen)
    size = {"y": sizes.y, "dx": sizes.dx, "dweight": sizes.dgamma, "dbias": sizes.dbeta}
    size |= {"running_mean": sizes.mean + 1, "running_var": sizes.var + 4}
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if name == "num_batches_tracked":
            assert value == theirs[name]
            continue
        near(array(value), array(theirs[name]), computed=batch.dtype, size=size[name], count=batch.count)


def exact(layer: Any) -> Any:
    return copy.deepcopy(layer).double()
