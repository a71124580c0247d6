# SPDX-License-Identifier: Apache-2.0
"""recalibrate(layerwise=True): each layer is fed what evaluation feeds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recalibrating import Snapshot, drawn

import batchnorm as bn

Array = np.ndarray[Any, Any]


class Network:
    """Two or three layers with a product of matrices and a ReLU in between, in float64."""

    def __init__(self, rng: np.random.Generator, layers: int = 2, **told: Any) -> None:
        self.layers = [drawn(bn.BatchNorm1d(3, dtype=np.float64, **told), rng) for _ in range(layers)]
        self.mixed = [rng.normal(size=(3, 3)) for _ in self.layers]

    def __call__(self, x: Array) -> Array:
        for layer, mixed in zip(self.layers, self.mixed):
            x = np.maximum(layer(x), 0) @ mixed
        return x

    def fed(self, x: Array) -> list[Array]:
        """The inputs of each layer in evaluation, by the formula."""
        inputs = []
        for layer, mixed in zip(self.layers, self.mixed):
            inputs.append(x)
            x = layer.gamma * (x - layer.running_mean) / np.sqrt(layer.running_var + layer.eps) + layer.beta
            x = np.maximum(x, 0) @ mixed
        return inputs


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("meddle", [False, True])
def test_layerwise_statistics_are_those_of_what_evaluation_feeds(
    rng: np.random.Generator, case: int, meddle: bool
) -> None:
    """For every layer, and without `layerwise` for the first alone, whatever forward() does to the modes."""
    layers, unbiased = int(rng.integers(2, 4)), bool(case % 2)
    network = Network(rng, layers, unbiased=unbiased)
    batches = [rng.normal(size=(int(n), 3)) * n + 3 * rng.normal(size=3) for n in rng.integers(2, 6, 7)]
    every = np.concatenate(batches)
    network.layers[0].eval()
    network.layers[1](batches[0])
    snapshots = [Snapshot(layer) for layer in network.layers]
    seen: list[list[bool]] = []

    def forward(batch: Array) -> None:
        seen.append([layer.training for layer in network.layers])
        if meddle:
            for layer in network.layers:
                layer.train(bool(len(seen) % 2))
        network(batch)

    # In an order that is not that of the calls, and with one that is there twice.
    bn.recalibrate([*reversed(network.layers), network.layers[0]], forward, batches, layerwise=True)
    assert len(seen) == layers * len(batches)
    if not meddle:
        assert seen[:: len(batches)] == [[at >= done for at in range(layers)] for done in range(layers)]
    for snapshot in snapshots:
        snapshot.check(recalibrated=True)
    for layer, given in zip(network.layers, network.fed(every)):
        assert np.allclose(layer.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
        assert np.allclose(layer.running_var, given.var(0, ddof=int(unbiased)), rtol=1e-11)
        assert layer.num_batches_tracked == len(batches)

    bn.recalibrate(network.layers, network, iter(batches))
    first, second = network.fed(every)[:2]
    assert np.allclose(network.layers[0].running_mean, first.mean(0), rtol=1e-11)
    assert np.allclose(network.layers[0].running_var, first.var(0, ddof=int(unbiased)), rtol=1e-11)
    assert not np.allclose(network.layers[1].running_var, second.var(0, ddof=int(unbiased)), rtol=0.01)


def test_layerwise_of_one_layer_is_the_default(rng: np.random.Generator) -> None:
    batches = [rng.normal(size=(4, 3)).astype(np.float32) + i for i in range(3)]
    layers = [drawn(bn.BatchNorm1d(3), rng) for _ in "12"]
    bn.recalibrate(layers[0], layers[0], iter(batches))
    bn.recalibrate(layers[1], layers[1], iter(batches), layerwise=True)
    assert np.array_equal(layers[0].running_mean, layers[1].running_mean)
    assert np.array_equal(layers[0].running_var, layers[1].running_var)


def test_layerwise_with_rows_and_with_num_batches(rng: np.random.Generator) -> None:
    first = drawn(bn.BatchNorm1d(3, dtype=np.float64, groups=bn.Split(2)), rng)
    second = drawn(bn.BatchNorm1d(3, dtype=np.float64), rng)
    batches = [rng.normal(size=(6, 3)) + i for i in range(5)]
    bn.recalibrate([first, second], lambda x: second(first(x)), batches, num_batches=4, layerwise=True)
    assert first.num_batches_tracked.tolist() == [4, 4]
    first.eval()
    given = np.concatenate([first(batch) for batch in batches[:4]])
    assert np.allclose(second.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
    assert np.allclose(second.running_var, given.var(0, ddof=1), rtol=1e-11)


def test_layerwise_is_all_or_nothing(rng: np.random.Generator) -> None:
    """Also where the first layer had its statistics already."""
    network = Network(rng)
    batches = [rng.normal(size=(4, 3)) for _ in range(3)]
    snapshots = [Snapshot(layer) for layer in network.layers]
    calls = []

    def failing(batch: Array) -> None:
        calls.append(1)
        if len(calls) == 5:
            assert not np.array_equal(network.layers[0].running_mean, snapshots[0].state["running_mean"])
            raise KeyError("stop")
        network(batch)

    with pytest.raises(KeyError, match="stop"):
        bn.recalibrate(network.layers, failing, batches, layerwise=True)
    for snapshot in snapshots:
        snapshot.check()
    never = drawn(bn.BatchNorm1d(3), rng)
    with pytest.raises(ValueError, match=r"layers\[2\] \(BatchNorm1d of 3 channels\) was never called by forward"):
        bn.recalibrate([*network.layers, never], network, batches, layerwise=True)
    for snapshot in snapshots:
        snapshot.check()


def test_layerwise_needs_batches_again_and_one_order(rng: np.random.Generator) -> None:
    network = Network(rng)
    first, second = network.layers
    batches = [rng.normal(size=(4, 3)) for _ in range(3)]
    snapshots = [Snapshot(layer) for layer in network.layers]
    with pytest.raises(TypeError, match=r"^batches is of type list_iterator, which can be gone through once, expected"):
        bn.recalibrate(network.layers, network, iter(batches), layerwise=True)
    with pytest.raises(TypeError, match="^layerwise is 'yes'"):
        bn.recalibrate(network.layers, network, batches, layerwise="yes")  # type: ignore[arg-type]

    def of_two_minds(number: int) -> None:
        (first if number else second)((second if number else first)(batches[number]))

    told = r"^forward\(\) calls layers\[1\] .* before layers\[0\] .* in batch 1, but not in an earlier one"
    with pytest.raises(ValueError, match=told):
        bn.recalibrate(network.layers, of_two_minds, range(3), layerwise=True)
    for snapshot in snapshots:
        snapshot.check()


def test_layerwise_of_two_branches(rng: np.random.Generator) -> None:
    """A network that goes twice over each batch, with other halves: all calls of a layer are one population."""
    network = Network(rng)
    batches = [rng.normal(size=(8, 3)) * i for i in range(1, 4)]
    bn.recalibrate(
        network.layers, lambda x: (network(np.ascontiguousarray(x[:3])), network(x[3:])), batches, layerwise=True
    )
    for layer, given in zip(network.layers, network.fed(np.concatenate(batches))):
        assert np.allclose(layer.running_mean, given.mean(0), rtol=1e-11, atol=1e-12)
        assert np.allclose(layer.running_var, given.var(0, ddof=1), rtol=1e-11)
        assert layer.num_batches_tracked == 6
