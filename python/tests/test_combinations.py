# SPDX-License-Identifier: Apache-2.0
"""All that a call may be told at once, drawn at random, against the oracle.

BATCHNORM_TEST_SEED draws others; a failure prints what was drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from calls import ACTIVATIONS, DTYPES, LAYOUTS, Given, check_gradients, check_training, check_y, draw, gradient
from oracle import Call

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


def some_call(rng: np.random.Generator, shape: tuple[int, int, int], dtype: str, **more: Any) -> tuple[Call, Any]:
    """A call of the oracle that is told all sorts of things, and its groups."""
    groups = some_groups(rng, shape[0])
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
        **more,
    }
    if told["source"] != ("batch",):
        # Left out: a single value that becomes beta under another source, and y where nothing counts there.
        told["single_value"] = "running"
        told["masked"] = "zero" if told["masked"] == "normalize" and told["weights"] else told["masked"]
    print(f"{shape=} {groups=} {told}")
    call = draw(rng, shape, dtype, groups, **told)
    if call.weights is not None:
        # A sum of at most 1 is no population to estimate a variance of.
        call.weights = np.where(call.weights == 0.5, 1.5, call.weights)
    call.num_batches = call.num_batches + rng.integers(0, 4, len(call.num_batches))
    return call, groups


def some_shape(rng: np.random.Generator) -> tuple[int, int, int]:
    return int(rng.integers(1, 13)), int(rng.choice([1, 2, 3, 16, 17, 33])), int(rng.choice([1, 7, 49, 100]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(60))
def test_combinations(rng: np.random.Generator, number: int, dtype: str) -> None:
    call, groups = some_call(rng, some_shape(rng), dtype)
    policy = bn.Running(call.average, call.single_value, "skip", num_batches=call.num_batches.copy())
    layout = str(rng.choice(list(LAYOUTS)))
    bits = call.activation[0] not in ("hard_swish", "silu") and bool(rng.integers(2))
    print(f"{layout=} {bits=}")
    check_training(rng, call, dtype, layout, groups=groups, running=policy, save_mask=bits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(15))
def test_inference(rng: np.random.Generator, number: int, dtype: str) -> None:
    """Inference agrees, and so do its gradients, in which statistics are constants."""
    call, groups = some_call(rng, some_shape(rng), dtype, source=("batch",), frozen=True)
    given = Given(call, dtype, str(rng.choice(list(LAYOUTS))))
    (x, gamma, beta, mean, var), told = given.arguments()
    del told["momentum"], told["unbiased"]
    check_y(given, bn.forward_inference(x, gamma, beta, running_mean=mean, running_var=var, **told, groups=groups))
    saved = bn.frozen_statistics(mean, var, call.eps, beta=beta, groups=groups, **given.epilogue())
    assert saved.frozen
    dy = gradient(rng, given)
    check_gradients(given, dy, bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis))


@pytest.mark.parametrize("number", range(60))
def test_the_oracle_by_finite_differences(rng: np.random.Generator, number: int) -> None:
    """The oracle's gradients are those of the oracle's y, by finite differences."""
    call, _ = some_call(rng, (int(rng.integers(2, 7)), 2, 3), "f8", single_value="running")
    dy = gradient(rng, Given(call, "f8"), margin=0.01)
    names = "x", "gamma", "beta", "residual"
    for name, exact in zip(names if call.residual is not None else names[:3], oracle.backward(call, dy)):
        differences = oracle.by_differences(call, dy, name)
        assert (abs(differences - exact) < 1e-6 * (1 + abs(exact))).all(), name
