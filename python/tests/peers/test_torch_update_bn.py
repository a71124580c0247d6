# SPDX-License-Identifier: Apache-2.0
"""PyTorch's update_bn() averages the batches' statistics; recalibrate() has those of all values.

The two means are equal where batches are of one size. The variances differ by how the batches' means do::

    var of all = mean of the batches' variances + variance of the batches' means        both biased, equal batches
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from comparing import CASES, Array, peer
from in_torch import array, tensor, torch

import batchnorm as bn

swa_utils = peer("torch.optim.swa_utils")
LAYERS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


class Networks:
    """Channels mixed, batch norms and ReLUs, twice the same: in PyTorch, and with our layers in NumPy."""

    def __init__(self, rng: np.random.Generator, equal: bool) -> None:
        rank, depth = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        self.sizes = rng.integers(2, 7, size=int(rng.integers(2, 7)))
        if equal:
            self.sizes[:] = self.sizes[0]
        widths = rng.integers(1, 7, size=depth + 1)
        positions = tuple(rng.integers(1, 4, size=rank - 2))
        between = 10 ** rng.uniform(-1, 1)
        print(f"sizes {self.sizes}, widths {widths}, positions {positions}, means {between:.2f} apart")
        self.batches = [
            rng.normal(size=(n, widths[0], *positions)) + between * rng.normal(size=(widths[0], *[1] * (rank - 2)))
            for n in self.sizes
        ]
        self.mixing = [rng.normal(size=shape) for shape in zip(widths, widths[1:])]
        name = LAYERS[rank]
        self.theirs = [getattr(torch.nn, name)(int(n)).double() for n in widths[1:]]
        self.ours = [getattr(bn, name)(int(n), dtype=np.float64) for n in widths[1:]]
        for ours, theirs in zip(self.ours, self.theirs):
            theirs.weight.data.copy_(tensor(rng.normal(size=len(theirs.weight))))
            theirs.bias.data.copy_(tensor(rng.normal(size=len(theirs.bias))))
            theirs.running_mean.copy_(tensor(rng.normal(size=len(theirs.bias))))
            ours.load_state_dict({key: array(value).copy() for key, value in theirs.state_dict().items()})

    def forward(self, x: Any, layers: list[Any], einsum: Callable[..., Any], zero: Callable[[Any], Any]) -> None:
        for mixing, layer in zip(self.mixing, layers):
            x = zero(layer(einsum("nc...,cd->nd...", x, mixing if layer in self.ours else tensor(mixing))))

    def update(self) -> list[list[Any]]:
        """Updates both models. Returns the inputs of each of PyTorch's layers, batch by batch."""
        inputs: list[list[Any]] = [[] for _ in self.theirs]
        for layer, seen in zip(self.theirs, inputs):
            layer.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].detach().clone()))
        networks = self

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = torch.nn.ModuleList(networks.theirs)

            def forward(self, x: Any) -> None:
                networks.forward(x, networks.theirs, torch.einsum, torch.relu)

        with torch.no_grad():
            swa_utils.update_bn([tensor(x) for x in self.batches], Network())
        bn.recalibrate(
            self.ours,
            lambda x: self.forward(x, self.ours, np.einsum, lambda y: np.maximum(y, 0)),
            self.batches,
            progress=False,
        )
        return inputs


def close(ours: Array, theirs: Any) -> None:
    assert np.allclose(ours, array(theirs), rtol=1e-10, atol=1e-10)


def over(x: Any) -> list[int]:
    return [a for a in range(x.ndim) if a != 1]


@pytest.mark.parametrize("equal", [True, False], ids=["equal batches", "any batches"])
@pytest.mark.parametrize("case", CASES)
def test_a_network(rng: np.random.Generator, case: int, equal: bool) -> None:
    networks = Networks(rng, equal)
    inputs = networks.update()
    for ours, theirs, seen in zip(networks.ours, networks.theirs, inputs):
        every = torch.cat(seen)
        close(ours.running_mean, every.mean(over(every)))
        close(ours.running_var, every.var(over(every), unbiased=True))
        assert ours.num_batches_tracked == int(theirs.num_batches_tracked) == len(networks.sizes)
        means = torch.stack([x.mean(over(x)) for x in seen])
        close(array(means.mean(0)), theirs.running_mean)
        if equal:
            close(ours.running_mean, theirs.running_mean)
            n, m = every.numel() // every.shape[1], seen[0].numel() // every.shape[1]
            pooled = theirs.running_var * (m - 1) / m + means.var(0, unbiased=False)
            close(ours.running_var, pooled * n / (n - 1))


@pytest.mark.parametrize("case", range(4))
def test_one_batch_is_the_same_for_both(rng: np.random.Generator, case: int) -> None:
    networks = Networks(rng, True)
    del networks.batches[1:]
    networks.update()
    for ours, theirs in zip(networks.ours, networks.theirs):
        close(ours.running_mean, theirs.running_mean)
        close(ours.running_var, theirs.running_var)


def test_batches_of_any_size_weigh_as_much_as_they_hold() -> None:
    """PyTorch gives for 0, 0, 0, 0 and 3, 3 the mean of 0 and 3, and no variance."""
    batches = [np.zeros((4, 1)), np.full((2, 1), 3.0)]
    theirs, ours = torch.nn.BatchNorm1d(1).double(), bn.BatchNorm1d(1, dtype=np.float64)
    swa_utils.update_bn([tensor(x) for x in batches], theirs)
    bn.recalibrate(ours, ours, batches, progress=False)
    assert (float(theirs.running_mean), float(theirs.running_var)) == (1.5, 0)
    assert ours.running_mean.tolist() == [1]
    assert np.allclose(ours.running_var, np.var([0, 0, 0, 0, 3, 3], ddof=1), rtol=1e-15)


def test_the_bar_is_of_tqdm(capfd: pytest.CaptureFixture[str]) -> None:
    peer("tqdm")
    layer = bn.BatchNorm1d(1, dtype=np.float64)
    batches = [np.arange(4.0)[:, None]] * 3
    bn.recalibrate(layer, layer, batches, progress=True)
    assert "3/3" in capfd.readouterr().err
    bn.Moments.stream(np.zeros((8, 2)), chunk_bytes=32, progress=True)
    assert "4/4" in capfd.readouterr().err
    bn.recalibrate(layer, layer, batches)
    assert capfd.readouterr().err == ""
