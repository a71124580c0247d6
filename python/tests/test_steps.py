# SPDX-License-Identifier: Apache-2.0
"""The building blocks: a batch in parts gives what the whole batch gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from helpers import LAYOUTS, both
from oracle import Real, plain, rows

import batchnorm as bn

Array = np.ndarray[Any, Any]
PARTS = [[0, 11], [0, 1, 11], [0, 0, 3, 3, 10, 11, 11], list(range(12))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ratio", [0, 1e4])
def test_moments(rng: np.random.Generator, ratio: float, layout: str, dtype: Any) -> None:
    x = (rng.normal(size=(6, 3, 4, 5)) + ratio).astype(dtype)
    count, mean, m2 = bn.moments(LAYOUTS[layout](x))
    _, expected_mean, expected_var = oracle.moments(rows(x)[None], np.ones((1, 120), Real))
    assert count.tolist() == [120.0] * 3
    assert count.dtype == mean.dtype == m2.dtype == np.float64
    # The mean is good to a few roundings of the largest value; m2 as test_numerics has it.
    assert (abs(mean - expected_mean) <= 4 * 2.0**-53 * np.abs(x).max()).all()
    assert (abs(m2 / (120 * expected_var) - 1) <= 16 * (1 + ratio) * 2.0**-53).all()


def test_moments_of_nothing_and_of_one_value() -> None:
    for part in bn.moments(np.empty((0, 2))):
        assert part.tolist() == [0, 0]
    moments = bn.moments(np.array([[3.0, -4.0]]))
    assert [part.tolist() for part in moments] == [[1, 1], [3, -4], [0, 0]]
    assert moments.mean is moments[1]


def test_merging_is_exact_where_the_numbers_are() -> None:
    parts = [([2.0], [3.0], [2.0]), ([0.0], [99.0], [0.0]), ([2.0], [7.0], [8.0])]
    count, mean, m2 = bn.merge_moments(parts)
    # 2, 4 | 5, 9: mean 5, squared deviations 9 + 1 + 0 + 16.
    assert (count.tolist(), mean.tolist(), m2.tolist()) == ([4], [5], [26])


@pytest.mark.parametrize("borders", PARTS)
@pytest.mark.parametrize("axis", [1, -1, (1, 2)])
def test_a_batch_in_parts(rng: np.random.Generator, axis: Any, borders: list[int]) -> None:
    x, dy = rng.normal(size=(2, 11, 3, 4, 5)) + 3
    axes = axis if isinstance(axis, tuple) else (axis,)
    shape = tuple(x.shape[a] for a in axes)
    gamma, beta = rng.normal(size=(2, *shape))
    running, expected_running = (np.zeros(shape), np.ones(shape)), (np.zeros(shape), np.ones(shape))
    expected_y, saved = bn.forward_training(x, gamma, beta, **both(expected_running), axis=axis, momentum=0.25)
    expected = bn.backward(dy, x, saved, gamma=gamma, axis=axis)

    parts = [slice(a, b) for a, b in zip(borders, borders[1:])]
    count, mean, m2 = bn.merge_moments([bn.moments(x[part], axis) for part in parts])
    invstd = bn.inverse_std(count, m2)
    y = [bn.normalize(x[part], mean, invstd, gamma, beta, axis=axis) for part in parts]
    bn.update_running(*running, count, mean, m2, momentum=0.25)
    sums = [bn.backward_reduce(dy[part], x[part], mean, invstd, axis=axis) for part in parts]
    sum_dy, sum_dy_x_hat = sum(s.sum_dy for s in sums), sum(s.sum_dy_x_hat for s in sums)
    dx = [
        bn.backward_apply(dy[part], x[part], mean, invstd, count, sum_dy, sum_dy_x_hat, gamma, axis=axis)
        for part in parts
    ]

    # Values of order 1 to 100 in float64, summed in another order.
    assert mean.shape == shape
    for given, whole in [
        (mean, saved.mean),
        (invstd, saved.invstd),
        (np.concatenate(y), expected_y),
        (np.concatenate(dx), expected[0]),
        (sum_dy_x_hat, expected[1]),
        (sum_dy, expected[2]),
        (running[0], expected_running[0]),
        (running[1], expected_running[1]),
    ]:
        assert np.allclose(given, whole, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("dy_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_sums_and_dx_in_every_layout(rng: np.random.Generator, x_layout: str, dy_layout: str) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 2, 5))
    _, mean, invstd = (each.astype(float) for each in oracle.found(plain(x)))
    dx, [dgamma], [dbeta], _ = (each.astype(float) for each in oracle.backward(plain(x), rows(dy)[None]))
    given_x, given_dy = LAYOUTS[x_layout](x), LAYOUTS[dy_layout](dy)
    sums = bn.backward_reduce(given_dy, given_x, mean, invstd)
    assert np.allclose(sums.sum_dy, dbeta, rtol=0, atol=1e-13)
    assert np.allclose(sums.sum_dy_x_hat, dgamma, rtol=0, atol=1e-13)
    given_dx = bn.backward_apply(given_dy, given_x, mean, invstd, [40.0] * 3, *sums)
    assert np.allclose(rows(given_dx), dx[0], rtol=0, atol=1e-13)


def test_gathered_rows_at_any_address(rng: np.random.Generator) -> None:
    rows = np.abs(rng.normal(size=(4, 3, 5)))
    memory = np.zeros(rows.nbytes + 1, np.uint8)[1:]
    unaligned = memory.view(np.float64).reshape(rows.shape)
    unaligned[...] = rows
    for found, expected in zip(bn.merge_moments(unaligned), bn.merge_moments(rows)):
        assert np.array_equal(found, expected)


def test_a_group_without_samples(rng: np.random.Generator) -> None:
    """Its count is 0, and nothing is divided by it."""
    x, dy = rng.normal(size=(2, 4, 3, 2))
    groups = bn.Segments([0, 0, 2, 2], 3)
    count, mean, m2 = bn.moments(x, groups=groups)
    assert count[1].tolist() == [0, 0, 0]
    invstd = bn.inverse_std(count, m2)
    sums = bn.backward_reduce(dy, x, mean, invstd, groups=groups)
    dx = bn.backward_apply(dy, x, mean, invstd, count, *sums, groups=groups)
    _, saved = bn.forward_training(x, groups=groups)
    assert np.array_equal(dx, bn.backward(dy, x, saved)[0])
    with pytest.raises(ValueError, match="count"):
        bn.backward_apply(dy, x, mean, invstd, count * [[0], [1], [1]], *sums, groups=groups)


def test_inverse_std() -> None:
    assert bn.inverse_std([4, 4, 0, 4], [16, 0, 0, 0], eps=0).tolist() == [0.5, 0, 0, 0]
    assert bn.inverse_std([[2.0, 0.0]], [[0.0, 0.0]], eps=0.25).tolist() == [[2, 2]]


def test_frozen_statistics_are_those_of_inference(rng: np.random.Generator) -> None:
    mean, var = rng.normal(size=3).astype("f4"), rng.uniform(0, 2, 3).astype("f4")
    saved = bn.frozen_statistics(mean, var, eps=1e-3)
    assert saved.frozen
    assert np.array_equal(saved.mean, mean.astype(float))
    assert np.allclose(saved.invstd, 1 / np.sqrt(var.astype(float) + 1e-3), rtol=4 * 2.0**-53, atol=0)
    assert "frozen=True" in repr(saved)


def test_update_running() -> None:
    mean, var = np.array([1.0, 2, 3], "f4"), np.array([4.0, 5, 6], "f4")
    count, batch, m2 = [4.0, 0, 2], [3.0, 99, 5], [12.0, 99, 2]
    bn.update_running(mean, var, count, batch, m2, decay=0.5)
    assert mean.tolist() == [2, 2, 4]
    assert var.tolist() == [4, 5, 4]
    with pytest.raises(ValueError, match="count|value"):
        bn.update_running(mean, var, [1.0, 1, 1], batch, m2)
    assert mean.tolist() == [2, 2, 4]
    bn.update_running(mean, var, [1.0, 1, 1], batch, [0.0, 0, 0], momentum=1, unbiased=False)
    assert var.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: bn.merge_moments([]), ValueError, "parts is empty"),
        (lambda z: bn.merge_moments([(z, z, z), (z, z, z[:2])]), ValueError, "m2 of part 1 has shape"),
        (lambda z: bn.merge_moments([(z - 1, z, z)]), ValueError, "count"),
        (lambda z: bn.merge_moments([(z + np.nan, z, z)]), ValueError, "count"),
        (lambda z: bn.inverse_std(z, z, eps=-1), ValueError, "eps"),
        (lambda z: bn.inverse_std(z, z[:2]), ValueError, "count has shape"),
        (lambda z: bn.inverse_std(z, z * 1j), TypeError, "m2 has dtype complex128"),
        (lambda z: bn.normalize(np.zeros((4, 3)), z[:2], z), ValueError, "mean has shape"),
        (lambda z: bn.backward_reduce(np.zeros((4, 3)), np.zeros((4, 3)), z, z[:2]), ValueError, "invstd has shape"),
        (lambda z: bn.backward_apply(*[np.zeros((4, 3))] * 2, z, z, z, z, z), ValueError, "count"),
        (lambda z: bn.backward_apply(*[np.zeros((4, 3))] * 2, z, z, z + np.inf, z, z), ValueError, "count"),
        (lambda z: bn.update_running([0.0], z, z, z, z), TypeError, "running_mean is of type list"),
        (lambda z: bn.update_running(z.astype(int), z, z, z, z), TypeError, "running_mean has dtype int64"),
        (
            lambda z: bn.update_running(z, z.astype("f4"), z, z, z),
            TypeError,
            "running_var has dtype float32, expected float64, the dtype of running_mean: it is updated in place",
        ),
        (lambda z: bn.update_running(z, z[::-1], z, z, z), ValueError, "running_var is not contiguous"),
        (lambda z: bn.frozen_statistics(z, z[:2]), ValueError, "running_var has shape"),
        (lambda z: bn.frozen_statistics(z, z, eps=np.nan), ValueError, "eps"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.zeros(3))


def test_parts_as_they_come(rng: np.random.Generator) -> None:
    """A generator, an array of parts as an exchange gathers them, and a single part by itself."""
    x = rng.normal(size=(12, 3, 4))
    parts = [bn.moments(x[:5]), bn.moments(x[5:])]
    expected = bn.merge_moments(parts)
    for given in (iter(parts), np.array(parts)):
        for found, wanted in zip(bn.merge_moments(given), expected):
            assert np.array_equal(found, wanted)
    for found, wanted in zip(bn.merge_moments(parts[0]), parts[0]):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("parts", [[(6.0, 1.0, 2.0)], [([1.0], [2.0])], [np.ones(3)], [(1.0,)]])
def test_parts_that_are_not_three_arrays(parts: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="part 0 is .*, expected arrays of count, mean and m2"):
        bn.merge_moments(parts)
