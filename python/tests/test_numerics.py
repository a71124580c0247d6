# SPDX-License-Identifier: Apache-2.0
"""Forward passes against the oracle.

u is half an ulp of 1 in the dtype, v the same in float64. Counting the roundings of y = gamma * x_hat + beta: x - mean
(at most two, as the mean has two parts), gamma * invstd rounded to the dtype, their product, and the sum: at most
5 u (abs(gamma * x_hat) + abs(beta)). The rest is the error of the statistics, which are sums in float64: the mean is
good to a few v of the largest abs(x), the variance to a few v times abs(mean) / std. SLACK doubles what was counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from helpers import LAYOUTS
from oracle import plain, rows

import batchnorm as bn

SLACK = 2.0
DTYPES = [np.float32, np.float64]
V = 2.0**-53

Array = np.ndarray[Any, Any]


def unit(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def bound(call: oracle.Call, dtype: Any) -> Array:
    """The distance that y may have from the oracle's."""
    _, mean, invstd = oracle.found(call)
    scale, x = abs(call.gamma.T) * invstd[:, None], call.x[0]
    rounding = 5 * unit(dtype) * (scale * abs(x - mean[:, None]) + abs(call.beta.T))
    # The two-term mean of float32 holds 48 bits; the one of float64 is rounded to 53.
    in_mean = max(4 * V, 2.0**-48 if dtype == np.float32 else 0) * np.abs(x).max()
    return SLACK * (rounding + in_mean * scale)


def draw(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, ratio: float = 0.5
) -> tuple[Array, Array, Array]:
    """x with abs(mean) / std near `ratio`, gamma and beta."""
    std = rng.uniform(0.5, 2, size=(1, shape[1], *[1] * (len(shape) - 2)))
    x = std * (rng.normal(size=shape) + ratio)
    return x.astype(dtype), rng.normal(size=shape[1]).astype(dtype), rng.normal(size=shape[1]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [0, 1, 1e2, 1e4])
@pytest.mark.parametrize(
    "shape", [(2, 3), (7, 1), (4096, 17), (8, 5, 7, 7), (3, 4, 33, 31), (1, 2, 1000), (2, 3, 4, 5, 6)]
)
def test_training_is_within_the_rounding_of_the_formula(
    rng: np.random.Generator, shape: tuple[int, ...], ratio: float, dtype: Any
) -> None:
    x, gamma, beta = draw(rng, shape, dtype, ratio)
    y, saved = bn.forward_training(x, gamma, beta)
    call = plain(x, gamma, beta)
    expected, mean, invstd = oracle.found(call)
    assert y.dtype == dtype
    assert (abs(rows(y) - expected) <= bound(call, dtype)).all()
    assert saved.mean.dtype == saved.invstd.dtype == np.float64
    assert (abs(saved.mean - mean) <= 4 * V * np.abs(x).max()).all()
    # Blocks are merged by the differences of their means, each good to 4 v abs(mean); invstd feels half of m2's error.
    assert (abs(saved.invstd / invstd - 1) <= SLACK * (4 + 4 * abs(mean) * invstd) * V).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 6), (4, 3, 6, 5), (2, 1, 3, 4), (1, 4, 3, 1)])
def test_every_layout_gives_the_same_values(
    rng: np.random.Generator, shape: tuple[int, ...], layout: str, dtype: Any
) -> None:
    x, gamma, beta = draw(rng, shape, dtype)
    y, _ = bn.forward_training(LAYOUTS[layout](x), gamma, beta)
    call = plain(x, gamma, beta)
    expected, mean, invstd = oracle.found(call)
    limit = bound(call, dtype)
    assert (abs(rows(y) - expected) <= limit).all()
    mean, var = mean.astype(dtype), np.square(1 / invstd).astype(dtype)
    y = bn.forward_inference(LAYOUTS[layout](x), gamma, beta, running_mean=mean, running_var=var, eps=0)
    expected = oracle.found(plain(x, gamma, beta, eps=0, frozen=True, running_mean=mean, running_var=var))[0]
    assert (abs(rows(y) - expected) <= limit).all()


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, (0, 1), (1, 2), (2, 3), (-2, -1), (1, 2, 3), (0, 1, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_channel_axes(rng: np.random.Generator, axis: Any, order: Any) -> None:
    x = np.asarray(rng.normal(size=(3, 4, 2, 5)), order=order)
    axes = axis if isinstance(axis, tuple) else (axis,)
    shape = tuple(x.shape[a] for a in axes)
    gamma, beta = rng.normal(size=(2, *shape))
    y, saved = bn.forward_training(x, gamma, beta, axis=axis)
    call = plain(x, gamma, beta, axes)
    assert saved.mean.shape == saved.invstd.shape == shape
    assert (abs(rows(y, axes) - oracle.found(call)[0]) <= bound(call, np.float64)).all()
    flat, _ = bn.forward_training(x, gamma.ravel(), beta.ravel(), axis=axis)
    assert np.array_equal(flat, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["C", "channels last"])
@pytest.mark.parametrize("shape", [(7, 3), (5000, 3), (4, 3, 5, 7), (3, 3, 150, 151)])
def test_an_infinite_mean(
    rng: np.random.Generator, shape: tuple[int, ...], layout: str, infinity: float, dtype: Any
) -> None:
    """The sum of a channel is infinite by one value or by all, wherever they are; a deviation from it is none."""
    clean = rng.normal(size=shape).astype(dtype)
    expected, _ = bn.forward_training(LAYOUTS[layout](clean))
    for places in (np.s_[:], 0, -1, np.s_[::2]):
        x = clean.copy()
        channel = np.moveaxis(x, 1, 0)[1].ravel()
        channel[places] = infinity
        np.moveaxis(x, 1, 0)[1] = channel.reshape(shape[0], *shape[2:])
        running_mean, running_var = np.zeros((2, 3), dtype)
        y, saved = bn.forward_training(
            LAYOUTS[layout](x), None, None, running_mean=running_mean, running_var=running_var
        )
        assert saved.mean[1] == running_mean[1] == infinity
        assert np.isnan(saved.invstd[1])
        assert np.isnan(running_var[1])
        assert np.isnan(y[:, 1]).all()
        assert np.array_equal(y[:, [0, 2]], expected[:, [0, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unbiased", [True, False])
def test_running_statistics(rng: np.random.Generator, unbiased: bool, dtype: Any) -> None:
    mean, var = rng.normal(size=3).astype(dtype), rng.uniform(1, 2, 3).astype(dtype)
    by_decay = mean.copy(), var.copy()
    for momentum in (0.1, 0.25, 1.0, 0.0):
        x = rng.normal(size=(5, 3, 4)).astype(dtype)
        told = {"running_mean": mean, "running_var": var, "momentum": momentum, "unbiased": unbiased}
        call = plain(x, **told)
        [expected_mean], [expected_var], _ = oracle.updated(call)
        batch_mean = oracle.found(call)[1]
        bn.forward_training(x, **told)
        told = {"running_mean": by_decay[0], "running_var": by_decay[1], "unbiased": unbiased}
        bn.forward_training(x, **told, decay=1 - momentum)
        # In float64: the error of the statistic, two products, a sum. Then one rounding to the dtype.
        terms = abs(expected_mean) + abs(batch_mean)
        assert (abs(mean - expected_mean) <= SLACK * (unit(dtype) * terms + 4 * V * (terms + np.abs(x).max()))).all()
        assert (abs(var - expected_var) <= SLACK * (unit(dtype) + 8 * V) * expected_var).all()
    assert np.allclose(by_decay[0], mean, rtol=8 * unit(dtype), atol=8 * unit(dtype))
    assert np.allclose(by_decay[1], var, rtol=8 * unit(dtype))


def test_momentum_zero_and_one_take_one_side_exactly(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 2))
    mean, var = np.array([3.0, np.pi]), np.array([1.0, np.e])
    bn.forward_training(x, None, None, running_mean=mean, running_var=var, momentum=0)
    assert (mean.tolist(), var.tolist()) == ([3.0, np.pi], [1.0, np.e])
    _, saved = bn.forward_training(x, None, None, running_mean=mean, running_var=var, decay=0)
    assert np.array_equal(mean, saved.mean)


def test_inference_uses_the_running_statistics_alone(rng: np.random.Generator) -> None:
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, 3)
    kept = mean.copy(), var.copy()
    for count in (1, 5):
        x = rng.normal(size=(count, 3)) + 100
        told = {"running_mean": mean, "running_var": var, "eps": 1e-3}
        call = plain(x, frozen=True, **told)
        y = bn.forward_inference(x, **told)
        assert (abs(rows(y) - oracle.found(call)[0]) <= bound(call, np.float64)).all()
    assert np.array_equal(mean, kept[0])
    assert np.array_equal(var, kept[1])


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (0, 3, 0, 4)])
def test_an_empty_batch_changes_nothing(shape: tuple[int, ...]) -> None:
    mean, var = np.full(3, 5.0), np.full(3, 6.0)
    y, saved = bn.forward_training(np.empty(shape), None, None, running_mean=mean, running_var=var, eps=0.25)
    assert y.shape == shape
    assert (mean == 5).all()
    assert (var == 6).all()
    assert not saved.mean.any()
    assert (saved.invstd == 2).all()
    dx, dgamma, dbeta = bn.backward(np.empty(shape), np.empty(shape), saved)
    assert dx.shape == shape
    assert not dgamma.any()
    assert not dbeta.any()
    assert bn.forward_inference(np.empty(shape), None, None, running_mean=mean, running_var=var).shape == shape


def test_one_value_per_channel_is_an_error_that_changes_nothing() -> None:
    mean, var, out = np.full(3, 5.0), np.full(3, 6.0), np.full((1, 3), 7.0)
    with pytest.raises(ValueError, match="value"):
        bn.forward_training(np.zeros((1, 3)), None, None, running_mean=mean, running_var=var, out=out)
    assert (mean == 5).all()
    assert (var == 6).all()
    assert (out == 7).all()
