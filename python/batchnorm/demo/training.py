# SPDX-License-Identifier: Apache-2.0
"""Trains the network on real images of handwritten digits, and keeps a record of how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from .network import Array, Labels, Network, cross_entropy

SIZES = (64, 64, 64, 64, 10)
BATCH = 64
TEST_IMAGES = 448
NAMES = {False: "without batch norm", True: "with batch norm"}
PERCENTILES = (5, 25, 50, 75, 95)


class Digits(NamedTuple):
    """The 1,797 images of 8 x 8 pixels that come with scikit-learn, as one split into training and test images."""

    train_x: Array
    train_y: Labels
    test_x: Array
    test_y: Labels

    @classmethod
    def split(cls, seed: int) -> Digits:
        images, labels = load_digits(return_X_y=True)
        train_x, test_x, train_y, test_y = train_test_split(
            (images / 16).astype(np.float32), labels, test_size=TEST_IMAGES, stratify=labels, random_state=seed
        )
        return cls(train_x, train_y, test_x, test_y)


@dataclass
class Record:
    """One training run, epoch by epoch. A run that diverges ends with the epoch in which it did."""

    learning_rate: float
    batch_norm: bool
    seed: int
    network: Network
    loss: list[float] = field(default_factory=list)  # mean over the batches of the epoch
    accuracy: list[float] = field(default_factory=list)  # on the test images, in eval mode
    seconds: list[float] = field(default_factory=list)  # the training alone
    inputs_to_relu: list[Array] = field(default_factory=list)  # PERCENTILES, last hidden layer, all units and samples

    @property
    def diverged(self) -> bool:
        return not np.isfinite(self.loss[-1])

    def epochs_to(self, accuracy: float) -> int | None:
        """The first epoch, counted from 1, that ended with this test accuracy; None if none did."""
        return next((epoch for epoch, reached in enumerate(self.accuracy, 1) if reached >= accuracy), None)


def accuracy(network: Network, x: Array, labels: Labels) -> float:
    """Share of the images that the network, in the mode it is in, names correctly."""
    return float(np.mean(network(x).argmax(axis=1) == labels))


def train_epoch(network: Network, digits: Digits, rate: float, rng: np.random.Generator) -> tuple[float, Array]:
    """One pass over the training images in random order: its mean loss, and what the last ReLU was given."""
    losses, inputs = [], []
    order = rng.permutation(len(digits.train_x))
    # The remainder is left out: statistics of a last batch of three images would be no statistics.
    for start in range(0, len(order) - BATCH + 1, BATCH):
        batch = order[start : start + BATCH]
        loss, gradient = cross_entropy(network(digits.train_x[batch]), digits.train_y[batch])
        losses.append(loss)
        inputs.append(network.activations[-1].x)
        network.backward(gradient)
        network.descend(rate)
    return float(np.mean(losses)), np.concatenate(inputs)


def train(
    learning_rate: float, *, batch_norm: bool, seed: int, epochs: int, finished_epoch: Callable[[], object]
) -> Record:
    """A new network, trained. Both kinds start from the same weights of a seed, and see the same batches."""
    digits = Digits.split(seed)
    network = Network(SIZES, np.random.default_rng(seed), batch_norm=batch_norm)
    record = Record(learning_rate, batch_norm, seed, network)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        # A network may overflow at a large learning rate: the loss tells, and is what the report goes by.
        with np.errstate(over="ignore", invalid="ignore"):
            network.train()
            start = time.perf_counter()
            loss, inputs = train_epoch(network, digits, learning_rate, rng)
            record.seconds.append(time.perf_counter() - start)
            record.loss.append(loss)
            finished_epoch()
            if record.diverged:
                break
            network.eval()
            record.accuracy.append(accuracy(network, digits.test_x, digits.test_y))
            record.inputs_to_relu.append(np.percentile(inputs, PERCENTILES))
    return record
