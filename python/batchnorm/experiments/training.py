# SPDX-License-Identifier: Apache-2.0
"""Training that the experiments share: the demo's network, by stochastic gradient descent, on the digits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Callable

import numpy as np

from ..demo.network import Array, Labels, Network, cross_entropy
from ..demo.training import BATCH, SIZES, Digits, accuracy

__all__ = ["BATCH", "DEEP", "SIZES", "Digits", "build", "digits", "fit", "percent_right"]

DEEP = (64,) * 6 + (10,)  # five hidden layers
digits = cache(Digits.split)


def build(seed: int, sizes: tuple[int, ...] = SIZES, **settings: Any) -> Network:
    """A new network. Networks of one seed have the same first weights, whatever else is asked for."""
    return Network(sizes, np.random.default_rng(seed), **settings)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray[Any, Any]]:
    """All indices in random order, `size` at a time; a remainder is left out."""
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def fit(
    network: Network,
    data: Digits,
    *,
    rate: float,
    epochs: int,
    seed: int,
    batch: int = BATCH,
    before_step: Callable[[Array, Labels], object] | None = None,
) -> None:
    """Trains, and ends early when the loss is no number any more. Networks of one seed see the same batches."""
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # at a large rate a network may overflow
        for _ in range(epochs):
            for chosen in batches(len(data.train_x), batch, rng):
                x, labels = data.train_x[chosen], data.train_y[chosen]
                if before_step:
                    before_step(x, labels)
                loss, gradient = cross_entropy(network(x), labels)
                if not np.isfinite(loss):
                    return
                network.backward(gradient)
                network.descend(rate)


def percent_right(network: Network, data: Digits) -> float:
    """Test accuracy in eval mode; a network that has come to NaN names every image 0."""
    network.eval()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        right = accuracy(network, data.test_x, data.test_y)
    network.train()
    return 100 * right
