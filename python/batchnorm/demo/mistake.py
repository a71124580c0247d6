# SPDX-License-Identifier: Apache-2.0
"""The classic mistake, measured: a trained network is evaluated, but its batch norm was left in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from .network import Array, Labels, Network
from .report import table
from .training import Digits, accuracy

BATCHES = (2, 4, 8, 16, 64)


@contextmanager
def statistics_restored(network: Network) -> Iterator[None]:
    """Forward calls in training mode move the running statistics: evaluation would change what it measures."""
    states = [norm.state_dict() for norm in network.norms]
    try:
        yield
    finally:
        for norm, state in zip(network.norms, states):
            norm.load_state_dict(state)


def accuracy_in_batches(network: Network, x: Array, labels: Labels, size: int) -> float:
    """Test accuracy when the images come `size` at a time; the remainder is spread over the batches."""
    parts = np.array_split(x, len(x) // size)
    answers = np.concatenate([network(part).argmax(axis=1) for part in parts])
    return float(np.mean(answers == labels))


def refusal(network: Network, x: Array) -> str:
    """The library's error for a single image in training mode."""
    network.train()
    try:
        with statistics_restored(network):
            network(x[:1])
    except ValueError as error:
        return str(error)
    finally:
        network.eval()
    raise AssertionError("a single value per channel was normalized")


class Shares(NamedTuple):
    """Test accuracy with so many images per batch, from 0 to 1."""

    size: int
    shuffled: float  # in training mode
    by_class: float  # in training mode, sorted by class
    right: float  # in eval mode, of which neither size nor order matters


class Found(NamedTuple):
    """The effect of the mistake on a network."""

    refusal: str
    shares: list[Shares]
    spoiled: float  # in eval mode, after a pass in training mode over images that came by class


def measure(network: Network, digits: Digits) -> Found:
    """The same network evaluated in every way. It is left in eval mode, with the running statistics that it had."""
    by_class = np.argsort(digits.test_y, kind="stable")
    sorted_x, sorted_y = digits.test_x[by_class], digits.test_y[by_class]
    shares = []
    for size in BATCHES:
        network.train()
        with statistics_restored(network):
            mixed = accuracy_in_batches(network, digits.test_x, digits.test_y, size)
        with statistics_restored(network):
            alike = accuracy_in_batches(network, sorted_x, sorted_y, size)
        network.eval()
        shares.append(Shares(size, mixed, alike, accuracy_in_batches(network, sorted_x, sorted_y, size)))

    network.train()
    with statistics_restored(network):
        accuracy_in_batches(network, sorted_x, sorted_y, BATCHES[0])
        network.eval()
        spoiled = accuracy(network, digits.test_x, digits.test_y)
    return Found(refusal(network, digits.test_x), shares, spoiled)


def lesson(found: Found) -> str:
    """The refusal, a table of accuracies, and what is left of the network after such an evaluation."""
    rows = [(str(size), *(f"{100 * share:.1f} %" for share in shares)) for size, *shares in found.shares]
    return "\n".join(
        (
            "One image at a time, in training mode, is refused:",
            f"  {found.refusal}",
            "",
            "Test accuracy of the same network, in training mode (wrong) and in eval mode (right):",
            table(("images per batch", "training, shuffled", "training, by class", "eval"), rows),
            "",
            "Training mode also moves the running statistics: after the images came by class,",
            f"{BATCHES[0]} at a time, eval mode is at {100 * found.spoiled:.1f} %.",
        )
    )
