# SPDX-License-Identifier: Apache-2.0
"""reference.py FOLDER: writes digits.bin, and numpy.json: an epoch of the NumPy network, for numpy.mjs to repeat."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("python", "live")]
from batchnorm.demo.network import Dense, Network, cross_entropy  # noqa: E402
from digits import digits  # noqa: E402

DEPTH, UNITS, BATCH, STEPS, RATE = 4, 64, 64, 21, 0.1


def epoch(data: bytes, *, batch_norm: bool) -> dict[str, Any]:
    """First weights, the images of each batch, and what came of them."""
    count = len(data) // 65
    labels = np.frombuffer(data, np.uint8, count)
    x = (np.frombuffer(data, np.uint8, offset=count).reshape(count, 64) / 16).astype(np.float32)
    rng = np.random.default_rng(11)
    network = Network([64, *[UNITS] * DEPTH, 10], rng, batch_norm=batch_norm)
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    weights = [layer.weight.tolist() for layer in dense]
    batches = rng.permutation(count)[: BATCH * STEPS].reshape(STEPS, BATCH)
    losses = []
    for batch in batches:
        loss, gradient = cross_entropy(network(x[batch]), labels[batch].astype(np.int64))
        losses.append(loss)
        network.backward(gradient)
        network.descend(RATE)
    network.eval()
    return {
        "settings": {"depth": DEPTH, "units": UNITS, "rate": RATE, "placement": "before" if batch_norm else "none"},
        "weights": weights,
        "batches": batches.tolist(),
        "losses": losses,
        "running_var": [norm.running_var.tolist() for norm in network.norms],
        "correct": int(np.sum(network(x).argmax(axis=1) == labels)),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    data = digits()
    (folder / "digits.bin").write_bytes(data)
    (folder / "numpy.json").write_text(json.dumps([epoch(data, batch_norm=given) for given in (False, True)]))
