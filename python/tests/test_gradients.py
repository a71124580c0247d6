# SPDX-License-Identifier: Apache-2.0
"""Backward passes against the oracle and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from helpers import LAYOUTS

import batchnorm as bn

Array = np.ndarray[Any, Any]


def loss(x: Array, gamma: Array, beta: Array, dy: Array, running: Any, axis: Any) -> float:
    """A function of which dy is the gradient by y."""
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
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("ratio", [0, 1e4])
@pytest.mark.parametrize("shape", [(2, 3), (4096, 17), (8, 5, 7, 7), (3, 4, 33, 31)])
def test_oracle(rng: np.random.Generator, shape: tuple[int, ...], ratio: float, frozen: bool, dtype: Any) -> None:
    """dx has three terms, each of at most 6 roundings; the statistics err as in test_numerics, and x_hat with them."""
    x = (rng.normal(size=shape) + ratio).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    gamma = rng.normal(size=shape[1]).astype(dtype)
    count, mean, m2 = reference.statistics(x, (1,))
    eps = 0.0 if frozen else 1e-5
    invstd = reference.inverse_std(m2 / count, eps)
    _, saved = bn.forward_training(x, gamma, eps=eps)
    if frozen:
        saved = bn.frozen_statistics(mean.astype(float), (m2 / count).astype(float), eps=0)
    dx, dgamma, dbeta = bn.backward(dy, x, saved, gamma=gamma)
    expected = reference.backward(dy, x, mean, invstd, gamma, frozen=frozen)

    unit, v, axes = float(np.finfo(dtype).eps) / 2, 2.0**-53, (1,)
    normalized = abs(reference.x_hat(x, mean, invstd, axes))
    scale = abs(reference.spread(gamma, x, axes) * reference.spread(invstd, x, axes))
    mean_dy = abs(reference.spread(expected[2], x, axes)) / count
    mean_product = abs(reference.spread(expected[1], x, axes)) / count
    # saved.invstd is off by so much of itself; x_hat by that, and by the mean's error over the standard deviation.
    in_invstd = reference.spread(2 * (4 + 4 * abs(mean) * invstd) * v, x, axes)
    in_x_hat = 4 * v * np.abs(x).max() * reference.spread(invstd, x, axes) + in_invstd * normalized
    in_map = in_x_hat + (2.0**-48 * reference.spread(abs(mean) * invstd, x, axes) if dtype == np.float32 else 0)
    terms = abs(dy) if frozen else abs(dy) + mean_dy + normalized * mean_product
    sums = 4 * v * np.sqrt(count)  # of the float64 sums, relative to their terms
    limit = scale * (
        (6 * unit + in_invstd) * terms
        + (0 if frozen else (in_map + sums) * (mean_product + np.abs(dy).max() + normalized))
    )
    assert (abs(dx - expected[0]) <= 2 * limit).all()

    for given, exact, parts, moved in [
        (dgamma, expected[1], normalized * abs(dy), in_x_hat * abs(dy)),
        (dbeta, expected[2], abs(dy).astype(np.longdouble), np.zeros_like(normalized)),
    ]:
        total, shift = (each.sum(axis=reference.others(x, axes)) for each in (parts, moved))
        assert given.dtype == dtype
        assert (abs(given - exact) <= 1.001 * unit * abs(exact) + 16 * v * total + shift).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dy_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_every_pair_of_layouts(rng: np.random.Generator, x_layout: str, dy_layout: str, dtype: Any) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 2, 5)).astype(dtype)
    gamma = rng.normal(size=3).astype(dtype)
    _, saved = bn.forward_training(x, gamma)
    gradients = bn.backward(LAYOUTS[dy_layout](dy), LAYOUTS[x_layout](x), saved, gamma=gamma)
    _, mean, invstd = reference.forward_training(x, gamma, gamma, 1e-5)
    for given, exact in zip(gradients, reference.backward(dy, x, mean, invstd, gamma)):
        # The values are of order 1 to 10, so that this is some ten roundings; the bounds above are the sharp ones.
        assert np.allclose(given, exact.astype(float), rtol=0, atol=64 * np.finfo(dtype).eps)


def test_gamma_none_is_one(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 5))
    _, saved = bn.forward_training(x)
    for given, expected in zip(bn.backward(dy, x, saved), bn.backward(dy, x, saved, gamma=[1.0, 1.0, 1.0])):
        assert np.array_equal(given, expected)


def test_dx_has_no_mean_and_no_part_along_x_hat(rng: np.random.Generator) -> None:
    """What the mean and the variance take out of y, they take out of dx."""
    x, dy = rng.normal(size=(2, 8, 3, 5))
    _, saved = bn.forward_training(x, eps=0)
    dx, _, _ = bn.backward(dy, x, saved)
    _, mean, invstd = reference.forward_training(x, [1] * 3, [0] * 3, 0)
    x_hat = reference.x_hat(x, mean, invstd, (1,))
    assert (abs(dx.sum(axis=(0, 2))) < 1e-13).all()
    assert (abs((dx * x_hat).sum(axis=(0, 2))) < 1e-13).all()


def test_saved_is_checked(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    with pytest.raises(TypeError, match="saved is of type tuple"):
        bn.backward(x, x, (0, 1))  # type: ignore[arg-type]
    _, saved = bn.forward_training(x[:, :2].copy())
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), expected \(4, 2\), that of the forward call"):
        bn.backward(x, x, saved)
