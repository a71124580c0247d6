# SPDX-License-Identifier: Apache-2.0
"""Backward passes against the oracle and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from helpers import LAYOUTS
from oracle import plain, rows

import batchnorm as bn

Array = np.ndarray[Any, Any]


def loss(x: Array, gamma: Array, beta: Array, dy: Array, running: Any, axis: Any) -> float:
    """A function whose gradient with respect to y is dy."""
    if running:
        y = bn.forward_inference(x, gamma, beta, running_mean=running[0], running_var=running[1], axis=axis)
    else:
        y, _ = bn.forward_training(x, gamma, beta, axis=axis)
    return float((y.astype(np.longdouble) * dy).sum())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 1), ((3, 2, 4), 1), ((2, 3, 4), -1), ((2, 2, 3, 4), (1, 2))])
def test_finite_differences(rng: np.random.Generator, shape: tuple[int, ...], axis: Any, frozen: bool) -> None:
    """Central differences with step h err by h**2 / 6 times the third derivative, of order 1, and by 2**-53 / h."""
    x, dy = rng.normal(size=(2, *shape))
    extents = tuple(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    gamma, beta, mean = rng.normal(size=(3, *extents))
    running = (mean, rng.uniform(0.5, 2, extents)) if frozen else None
    saved = bn.frozen_statistics(*running) if running else bn.forward_training(x, gamma, beta, axis=axis)[1]
    gradients = bn.backward(dy, x, saved, gamma=gamma, axis=axis)
    h = 1e-5
    for variable, gradient in zip((x, gamma, beta), gradients):
        assert gradient.shape == variable.shape
        for index in np.ndindex(variable.shape):
            value = variable[index]
            variable[index] = value + h
            above = loss(x, gamma, beta, dy, running, axis)
            variable[index] = value - h
            below = loss(x, gamma, beta, dy, running, axis)
            variable[index] = value
            assert abs((above - below) / (2 * h) - gradient[index]) < 1e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dy_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_every_pair_of_layouts(rng: np.random.Generator, x_layout: str, dy_layout: str, dtype: Any) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 2, 5)).astype(dtype)
    gamma = rng.normal(size=3).astype(dtype)
    _, saved = bn.forward_training(x, gamma)
    gradients = bn.backward(LAYOUTS[dy_layout](dy), LAYOUTS[x_layout](x), saved, gamma=gamma)
    for given, exact in zip(gradients, oracle.backward(plain(x, gamma), rows(dy)[None])):
        # The values are of order 1 to 10, so that this is some ten roundings; test_exactness has sharp bounds.
        given = rows(given) if given.ndim > 1 else given
        assert np.allclose(given, exact[0].astype(float), rtol=0, atol=64 * np.finfo(dtype).eps)


def test_gamma_none_is_one(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 5))
    _, saved = bn.forward_training(x)
    for given, expected in zip(bn.backward(dy, x, saved), bn.backward(dy, x, saved, gamma=[1.0, 1.0, 1.0])):
        assert np.array_equal(given, expected)


def test_dx_has_no_mean_and_no_part_along_x_hat(rng: np.random.Generator) -> None:
    """The mean and the variance take the same two directions out of dx as out of y."""
    x, dy = rng.normal(size=(2, 8, 3, 5))
    _, saved = bn.forward_training(x, eps=0)
    dx, _, _ = bn.backward(dy, x, saved)
    x_hat, _, _ = oracle.found(plain(x, eps=0))
    assert (abs(rows(dx).sum(axis=1)) < 1e-13).all()
    assert (abs((rows(dx) * x_hat).sum(axis=1)) < 1e-13).all()


def test_saved_is_checked(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    with pytest.raises(TypeError, match="saved is of type tuple"):
        bn.backward(x, x, (0, 1))  # type: ignore[arg-type]
    _, saved = bn.forward_training(x[:, :2].copy())
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), expected \(4, 2\), that of the forward call"):
        bn.backward(x, x, saved)
