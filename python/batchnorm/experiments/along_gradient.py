# SPDX-License-Identifier: Apache-2.0
"""A look ahead in training: loss and gradient of a batch at points along its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..demo.mistake import statistics_restored
from ..demo.network import Array, Labels, Network, cross_entropy


def flat(network: Network) -> Array:
    return np.concatenate([gradient.ravel() for _, gradient in network.parameters()]).astype(np.float64)


def look_ahead(network: Network, x: Array, labels: Labels, distances: Sequence[float]) -> dict[str, float]:
    """Loss and gradient at distances along the gradient. The network and its running statistics stay as they were."""
    with statistics_restored(network):
        loss, by_logits = cross_entropy(network(x), labels)
        network.backward(by_logits)
        start = [(value, value.copy(), gradient.copy()) for value, gradient in network.parameters()]
        here = flat(network)
        losses, changes = [], []
        for distance in distances:
            for value, kept, gradient in start:
                value[...] = kept - distance * gradient
            there, by_logits = cross_entropy(network(x), labels)
            network.backward(by_logits)
            losses.append(there)
            changes.append(float(np.linalg.norm(flat(network) - here)))
        for value, kept, _ in start:
            value[...] = kept
    length = float(np.linalg.norm(here))
    return {
        "loss": loss,
        "lowest loss": min(losses),
        "highest loss": max(losses),
        "gradient": length,
        "least change": min(changes),
        "largest change": max(changes),
        "beta": max(change / (distance * length) for change, distance in zip(changes, distances)),
    }
