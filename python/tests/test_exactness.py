# SPDX-License-Identifier: Apache-2.0
"""The promises of accuracy, held against real numbers: hard channels, alone and side by side, in every layout.

The unit is eps of the dtype. y has the roundings of test_numerics: (x - mean), gamma * invstd, their product and the
sum make no more than half a unit each of abs(gamma * x_hat) + abs(beta), which is two in all; and what is lost by the
rounding of gamma times the mean's rest is far below a unit of gamma. A gradient has seven such roundings, three and a
half units. With statistics from sums in double that is all there is to float32.

In float64 the statistics count as well. Roundings that go either way leave some units (13 were seen); where a channel
has but few different values, the 1024 that a lane adds up may all go one way, which makes 512 (286 were seen).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from channels import CHANNELS, CONSTANT, VARIED, cycled, draw, draw_gradient
from helpers import LAYOUTS

import batchnorm as bn

Array = np.ndarray[Any, Any]
Real = np.longdouble

DTYPES = [np.float32, np.float64]
FORWARD, BACKWARD = 2, 4

# Batch and plane, the channels of a tensor (0: all that there are, side by side), and how it lies in memory. Blocks are
# of 16384 values of a plane, of 1024 rows or 65536 values of all rows; planes of up to 32 values are summed as rows,
# and of up to 64 mapped as rows.
CASES = {
    "planes of several blocks": ((2, 130, 131), 0, "C"),
    "planes of one block": ((1, 128, 128), 0, "C"),
    "planes 7 x 7": ((64, 7, 7), 0, "C"),
    "planes 1 x 1": ((300, 1, 1), 0, "C"),
    "planes 2 x 5": ((200, 2, 5), 0, "C"),
    "a plane": ((3, 100, 100), 1, "C"),
    "NHWC": ((40, 9, 9), 0, "channels last"),
    "NC": ((900,), 0, "C"),
    "NC of one channel": ((70000,), 1, "C"),
    "NC of one channel among others": ((65536,), 1, "first channels"),
    "tall and narrow": ((100000,), 3, "C"),
    "wide": ((6, 3), 600, "C"),
    "wide NC": ((9,), 2500, "C"),
    "two rows": ((2,), 0, "C"),
}
cases = pytest.mark.parametrize("case", CASES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
epses = pytest.mark.parametrize("eps", [0.0, 1e-5])


def groups(case: str, names: list[str], eps: float) -> list[list[str]]:
    """The names of the channels of each tensor. If they need many tensors, each eps has half of them."""
    width = CASES[case][1] or len(names)
    tensors = [cycled(names[first:] + names[:first], width) for first in range(0, len(names), width)]
    return tensors[int(eps == 0) :: 2] if len(tensors) > 1 else tensors


def values(case: str) -> int:
    return int(np.prod(CASES[case][0]))


def tensor(rows: Array, case: str) -> Array:
    """A tensor made of rows, one for each channel."""
    (batch, *plane), _, layout = CASES[case]
    return LAYOUTS[layout](np.moveaxis(rows.reshape(len(rows), batch, *plane), 0, 1))


def rows(x: Array) -> Array:
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def normalized(x: Array, eps: float) -> tuple[Array, Array, Array]:
    """x_hat, invstd and mean of rows. The second mean takes away what the rounding of the first one leaves."""
    mean = x.astype(Real).mean(axis=1, keepdims=True)
    deviations = x - mean
    deviations -= deviations.mean(axis=1, keepdims=True)
    deviations[x.min(axis=1) == x.max(axis=1)] = 0
    var = (deviations**2).mean(axis=1, keepdims=True) + Real(eps)
    invstd = np.where(var == 0, 0, 1 / np.sqrt(np.where(var == 0, 1, var)))
    return deviations * invstd, invstd, mean


def in_statistics(x: Array) -> Array:
    """Units that the statistics of rows may be off by."""
    if x.dtype == np.float32:
        return np.zeros((len(x), 1))
    few = [len(set(row[:64].tolist())) < 32 for row in x]
    return np.where(few, 512.0, 32.0)[:, None]


def worst(names: list[str], error: Array, limit: Array) -> list[tuple[str, float]]:
    """Who is beyond the limit, and by what factor; NaN is."""
    wrong = ~(error <= limit)
    factors = np.where(wrong, error / np.where(limit == 0, np.finfo(Real).tiny, limit), 0).max(axis=1)
    return [(name, float(factor)) for name, factor, bad in zip(names, factors, wrong.any(axis=1)) if bad]


@dtypes
@pytest.mark.parametrize("name", CHANNELS)
def test_the_oracle_in_fractions(rng: np.random.Generator, name: str, dtype: Any) -> None:
    x = draw(rng, [name], 61, dtype)
    exact = [Fraction(float(value)) for value in x[0]]
    mean = sum(exact) / len(exact)
    var = sum((value - mean) ** 2 for value in exact) / len(exact)
    x_hat, invstd, _ = normalized(x, 0)
    if var == 0:
        assert not x_hat.any()
        assert invstd == 0
        return
    # longdouble to a Fraction: as a ratio of integers.
    inverse = Fraction(*invstd[0, 0].as_integer_ratio())
    assert abs(inverse**2 * var - 1) < Fraction(1, 2**58)
    for value, given in zip(exact, x_hat[0]):
        expected = (value - mean) * inverse
        assert abs(Fraction(*given.as_integer_ratio()) - expected) < Fraction(1, 2**57) * max(1, abs(expected))


@epses
@dtypes
@cases
def test_forward(rng: np.random.Generator, case: str, dtype: Any, eps: float) -> None:
    failures = []
    for names in groups(case, list(CHANNELS), eps):
        drawn = draw(rng, names, values(case), dtype)
        x = tensor(drawn, case)
        x_hat, invstd, _ = normalized(drawn, eps)
        y, saved = bn.forward_training(x, eps=eps)
        unit = np.finfo(dtype).eps * (FORWARD + in_statistics(drawn))
        in_invstd = 1e-9 if dtype == np.float32 else unit
        failures += worst(names, abs(rows(y) - x_hat), unit * np.maximum(1, abs(x_hat)))
        failures += worst(names, abs(saved.invstd[:, None] - invstd), in_invstd * invstd)

        gamma = (rng.normal(size=len(names)) * 10 ** rng.uniform(-2, 2, len(names))).astype(dtype)
        beta = rng.normal(size=len(names)).astype(dtype)
        y, again = bn.forward_training(x, gamma, beta, eps=eps, out=x)
        g, b = gamma.astype(Real)[:, None], beta.astype(Real)[:, None]
        limit = unit * (np.maximum(abs(g), abs(g * x_hat)) + abs(b))
        failures += worst(names, abs(rows(y) - (g * x_hat + b)), limit)
        assert np.array_equal(again.invstd, saved.invstd)
    assert not failures


@epses
@dtypes
@cases
def test_a_constant_channel_is_beta_beside_any_other(
    rng: np.random.Generator, case: str, dtype: Any, eps: float
) -> None:
    names = [name for pair in zip(cycled(CONSTANT, len(VARIED)), VARIED) for name in pair]
    for group in groups(case, names, eps):
        x = tensor(draw(rng, group, values(case), dtype), case)
        gamma, beta = rng.normal(size=(2, len(group))).astype(dtype)
        y, saved = bn.forward_training(x, gamma, beta, eps=eps)
        _, dgamma, _ = bn.backward(rng.normal(size=x.shape).astype(dtype), x, saved, gamma=gamma)
        for index, name in enumerate(group):
            if name in CONSTANT:
                assert saved.mean[index] == dtype(CONSTANT[name](rng, 1, dtype)[0]), name
                assert (y[:, index] == beta[index]).all(), name
                assert dgamma[index] == 0, name


def wrong_gradients(names: list[str], case: str, drawn: Array, drawn_dy: Array, gamma: Any, eps: float) -> list[Any]:
    """The gradients of rows of x and dy that are wrong. With a gamma, dx takes the place of dy."""
    dtype, quantum = drawn.dtype, np.finfo(drawn.dtype).smallest_subnormal
    x, given_dy = tensor(drawn, case), tensor(drawn_dy, case)
    _, saved = bn.forward_training(x, gamma, eps=eps)
    given = bn.backward(given_dy, x, saved, gamma=gamma, out=None if gamma is None else given_dy)

    x_hat, invstd, mean = normalized(drawn, eps)
    dy = drawn_dy.astype(Real)
    n = dy.shape[1]
    dbeta, dgamma = (each.sum(axis=1, keepdims=True) for each in (dy, dy * x_hat))
    g = Real(1) if gamma is None else gamma.astype(Real)[:, None]
    scale, along = g * invstd, x_hat * dgamma / n

    unit = np.finfo(dtype).eps * (BACKWARD + 2 * in_statistics(drawn))
    # saved.mean is one double, to which the mean is rounded: x_hat is so far off.
    off = 2.0**-51 * abs(mean) * invstd
    moved = off * (abs(dgamma) + abs(x_hat * dbeta)) / n
    terms = (abs(dy) + abs(dbeta) / n + abs(along)).max(axis=1, keepdims=True)
    # Three numbers may be subnormal: the gradient, what is scaled, and the slope that x - mean is scaled by.
    rounded = 4 * quantum * (1 + abs(scale) + abs(g * x_hat))
    in_dx = unit * abs(scale) * terms + abs(scale) * moved + rounded
    in_dgamma = unit * abs(dy * x_hat).sum(axis=1, keepdims=True) + off * abs(dbeta) + quantum
    in_dbeta = unit * abs(dy).sum(axis=1, keepdims=True) + quantum
    return [
        *worst(names, abs(rows(given[0]) - scale * (dy - dbeta / n - along)), in_dx),
        *worst(names, abs(given[1][:, None] - dgamma), in_dgamma),
        *worst(names, abs(given[2][:, None] - dbeta), in_dbeta),
    ]


@epses
@dtypes
@cases
def test_backward(rng: np.random.Generator, case: str, dtype: Any, eps: float) -> None:
    failures = []
    for names in groups(case, list(CHANNELS), eps):
        x = draw(rng, names, values(case), dtype)
        gamma = (rng.normal(size=len(names)) * 10 ** rng.uniform(-2, 0, len(names))).astype(dtype)
        failures += wrong_gradients(names, case, x, draw_gradient(rng, x, 0.3), None, eps)
        failures += wrong_gradients(names, case, x, draw_gradient(rng, x, 10), gamma, eps)
    assert not failures


@pytest.mark.parametrize("case", ["planes of several blocks", "planes 7 x 7", "NC"])
def test_a_slope_beyond_float32(rng: np.random.Generator, case: str) -> None:
    """invstd times the mean of dy * x_hat, where gamma * invstd and dx are well within."""
    names = ["mean 1", "border of float32", "mean 0"]
    x = draw(rng, names, values(case), np.float32)
    x_hat, _, _ = normalized(x, 0)
    dy = (1000 * x_hat + rng.normal(size=x.shape)).astype(np.float32)
    assert not wrong_gradients(names, case, x, dy, np.full(3, 1e-6, np.float32), 0.0)
