# SPDX-License-Identifier: Apache-2.0
"""All that a call may be told at once, drawn at random, against the oracle.

BATCHNORM_TEST_SEED draws others; a failure prints what was drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import ACTIVATIONS, DTYPES, LAYOUTS, check_training, draw

import batchnorm as bn


def some_groups(rng: np.random.Generator, n: int) -> Any:
    """None as often as each kind."""
    count = int(rng.integers(1, 5))
    size = int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
    return [
        None,
        bn.Ghost(size, bool(rng.integers(2)), bool(rng.integers(2))),
        bn.Segments(rng.integers(0, count, n), count),
        bn.Split(n // size, bool(rng.integers(2))),
        bn.Conditional(rng.integers(0, count, n), count),
    ][rng.integers(5)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(60))
def test_combinations(rng: np.random.Generator, number: int, dtype: str) -> None:
    n, c = int(rng.integers(1, 13)), int(rng.choice([1, 2, 3, 16, 17, 33]))
    shape = n, c, int(rng.choice([1, 7, 49, 100]))
    groups = some_groups(rng, n)
    told: dict[str, Any] = {
        "activation": ACTIVATIONS[rng.integers(len(ACTIVATIONS))],
        "residual": True if rng.integers(2) else None,
        "weights": True if rng.integers(2) else None,
        "masked": str(rng.choice(["normalize", "zero", "keep"])),
        "average": str(rng.choice(["exponential", "cumulative", "windowed", "debiased", "filled"])),
        "single_value": str(rng.choice(["running", "beta"])),
        "source": [("batch",), ("blend", 2.5), ("renorm", 1.5, 0.5, 0.75), ("updated",)][rng.integers(4)],
        "unbiased": bool(rng.integers(2)),
        "momentum": float(rng.choice([0.1, 0.25, 1])),
    }
    if told["source"] != ("batch",):
        # Whatever x_hat = 0 would be in another source, and what y is where nothing counts.
        told["single_value"] = "running"
        told["masked"] = "zero" if told["masked"] == "normalize" and told["weights"] else told["masked"]
    call = draw(rng, shape, dtype, groups, **told)
    if call.weights is not None:
        # A sum of at most 1 is no population to estimate a variance of.
        call.weights = np.where(call.weights == 0.5, 1.5, call.weights)
    call.num_batches = call.num_batches + rng.integers(0, 4, len(call.num_batches))
    policy = bn.Running(told["average"], told["single_value"], "skip", num_batches=call.num_batches.copy())
    layout = str(rng.choice(list(LAYOUTS)))
    bits = told["activation"][0] not in ("hard_swish", "silu") and bool(rng.integers(2))
    print(f"{shape=} {layout=} {groups=} {bits=} {told}")
    check_training(rng, call, dtype, layout, groups=groups, running=policy, save_mask=bits)
