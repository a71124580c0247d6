# SPDX-License-Identifier: Apache-2.0
"""Activations, residuals, weights and groups on channels that are easily got wrong: what must be alike is, to the bit.

The plain call is held to an oracle elsewhere; here everything else is held to the plain call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from channels import CHANNELS, draw, draw_gradient

import batchnorm as bn

Array = np.ndarray[Any, Any]

KINDS = list(CHANNELS)
SHAPES = [(4, 50), (3, 900), (64, 49), (300, 1), (5000, 1)]


def alike(given: Array, expected: Array, axis: int) -> list[str]:
    """The channels that differ."""
    pairs = zip(np.moveaxis(given, axis, 0), np.moveaxis(expected, axis, 0))
    return [kind for kind, (a, b) in zip(KINDS, pairs) if not np.array_equal(a, b, equal_nan=True)]


@pytest.fixture(params=[f"{dtype} {outer} {inner}" for dtype in ("f4", "f8", "f2") for outer, inner in SHAPES])
def tensors(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Array, ...]:
    """x, dy, gamma and beta."""
    dtype, outer, inner = request.param.split()
    rows = draw(rng, KINDS, int(outer) * int(inner), dtype)
    dy = draw_gradient(rng, rows, 0.3)
    shaped = [np.moveaxis(each.reshape(len(KINDS), int(outer), int(inner)), 0, 1).copy() for each in (rows, dy)]
    return (*shaped, *rng.normal(size=(2, len(KINDS))).astype("f8" if dtype == "f8" else "f4"))


@pytest.mark.parametrize("eps", [0, 1e-5])
def test_outputs(tensors: tuple[Array, ...], eps: float) -> None:
    """relu(u) rounded is relu of u rounded, and 0 added is nothing."""
    x, _, gamma, beta = tensors
    y, _ = bn.forward_training(x, gamma, beta, eps=eps)
    of_relu, _ = bn.forward_training(x, gamma, beta, eps=eps, activation="relu")
    assert alike(of_relu, np.where(y > 0, y, 0), 1) == []
    with_zero, _ = bn.forward_training(x, gamma, beta, eps=eps, residual=np.zeros_like(x))
    assert alike(with_zero, y, 1) == []
    one_group, _ = bn.forward_training(x, gamma, beta, eps=eps, groups=bn.Ghost(len(x)))
    assert alike(one_group, y, 1) == []


@pytest.mark.parametrize("eps", [0, 1e-5])
def test_gradients_through_an_activation(tensors: tuple[Array, ...], eps: float) -> None:
    """Computed again from x, read from a mask, or set to 0 by hand: the same gradient."""
    x, dy, gamma, beta = tensors
    y, plain = bn.forward_training(x, gamma, beta, eps=eps)
    expected = bn.backward(np.where(y > 0, dy, 0).astype(dy.dtype), x, plain, gamma=gamma)
    for save_mask in (True, False):
        _, saved = bn.forward_training(x, gamma, beta, eps=eps, activation="relu", save_mask=save_mask)
        for given, exact in zip(bn.backward(dy, x, saved, gamma=gamma), expected):
            wrong = alike(given, exact, 1 if given.ndim > 1 else 0)
            # Where values differ by an ulp, u may be on the other side of 0 before it is rounded.
            assert set(wrong) <= ({"steps of an ulp"} if x.dtype != np.float16 and not save_mask else set())


def test_weights_of_one(tensors: tuple[Array, ...]) -> None:
    x, _, gamma, beta = tensors
    unit = float(np.finfo(x.dtype).eps)
    for eps in (0, 1e-5):
        y, _ = bn.forward_training(x, gamma, beta, eps=eps)
        weighted, _ = bn.forward_training(x, gamma, beta, eps=eps, weights=np.ones((len(x), x.shape[2])))
        exact, given = y.astype(float), weighted.astype(float)
        largest = abs(exact).max(axis=(0, 2), keepdims=True)
        # 512: float64 rounds sums that cancel by as much.
        assert (abs(given - exact) <= (512 if x.dtype == np.float64 else 8) * unit * largest).all()
