# SPDX-License-Identifier: Apache-2.0
"""Moments: values in any parts, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from counting import DTYPES, check, unchanged
from helpers import LAYOUTS

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_any_size_and_layout(rng: np.random.Generator, layout: str, dtype: Any) -> None:
    x = (rng.normal(size=(9, 3, 4, 5)) + np.arange(9).reshape(-1, 1, 1, 1)).astype(dtype)
    seen = bn.Moments()
    for a, b in ((0, 1), (1, 1), (1, 6), (6, 9)):
        assert seen.update(LAYOUTS[layout](x[a:b]) if a < b else x[a:b]) is seen
    check(seen, x, (1,))


@pytest.mark.parametrize("case", range(20))
def test_variance_is_of_all_values(rng: np.random.Generator, case: int) -> None:
    """The means of parts differ by far more, or far less, than values within a part; in any order."""
    channels, between, offset = int(rng.integers(1, 6)), 10 ** rng.uniform(-3, 4), rng.choice([0, 1e5])
    sizes = rng.integers(0, 12, size=int(rng.integers(1, 9))) + (np.arange(1) == 0)
    weighted = bool(rng.random() < 0.5)
    print(f"channels {channels}, between {between}, offset {offset}, sizes {sizes}, weighted {weighted}")
    parts = [rng.normal(size=(n, channels, 3)) + between * rng.normal(size=channels)[:, None] + offset for n in sizes]
    weights = [rng.integers(0, 3, size=(n, 3)) + 0.25 if weighted else np.ones((n, 3)) for n in sizes]
    x, w = np.concatenate(parts), np.concatenate(weights)
    by_update, by_merge = bn.Moments(), bn.Moments(num_features=channels)
    for part, own in zip(parts, weights):
        by_update.update(part, own if weighted else None)
    for i in rng.permutation(len(parts)):
        assert by_merge.merge(bn.moments(parts[i], weights=weights[i])) is by_merge
    check(by_update, x, (1,), w)
    check(by_merge, x, (1,), w)
    check(bn.merge_moments([bn.moments(p, weights=o) for p, o in zip(parts, weights)]), x, (1,), w)


@pytest.mark.parametrize("axis", [0, -1, (1, 2), (0, 1, 2, 3)])
def test_any_channel_axes(rng: np.random.Generator, axis: Any) -> None:
    x = rng.normal(size=(4, 3, 2, 5))
    axes = tuple(a % 4 for a in (axis if isinstance(axis, tuple) else (axis,)))
    shape = tuple(x.shape[a] for a in axes)
    seen = bn.Moments(axis, shape if isinstance(axis, tuple) else shape[0]).update(x).update(x + 1)
    check(seen, np.stack([x, x + 1]), tuple(a + 1 for a in axes))
    assert seen.var().shape == seen.std(True).shape == seen.invstd().shape == shape


def test_weights_and_lengths(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 6)).astype(np.float32)
    mask = np.arange(6) < np.array([[6], [2], [0], [4]])
    by_lengths = bn.Moments().update(x, lengths=[6, 2, 0, 4])
    check(by_lengths, x, (1,), mask)
    unchanged(bn.Moments().update(x, mask), list(by_lengths))


def test_unbiased_weights_are_frequencies() -> None:
    x = np.array([[1.0], [4.0], [7.0]])
    seen = bn.Moments().update(x, [2, 0, 3])
    assert np.allclose(seen.var(unbiased=True), np.var([1, 1, 7, 7, 7], ddof=1), rtol=1e-15)


def test_three_arrays(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3))
    seen = bn.Moments().update(x)
    count, mean, m2 = seen
    assert len(seen) == 3
    assert seen[0] is count is seen.count
    assert seen[-1] is m2 is seen.m2
    assert seen[1:] == (mean, m2)
    for stacked in (np.stack(seen), np.array(seen), np.asarray([seen])[0]):
        assert stacked.dtype == np.float64
        assert np.array_equal(stacked, [count, mean, m2])
    merged = bn.merge_moments([seen, (count, mean, m2), [[0.0] * 3] * 3, bn.Moments()])
    assert np.array_equal(merged.count, [12] * 3)
    assert np.allclose(merged.var(), x.var(axis=0), rtol=1e-14)
    assert bn.merge_moments(iter([bn.Moments((1, 2), (3, 1))])).axis == (1, 2)
    for other in (seen, (count, mean, m2), np.stack(seen), iter(seen)):
        unchanged(bn.Moments().merge(other), [count, mean, m2])


def test_what_was_handed_out_stays(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3))
    seen = bn.Moments().update(x)
    other = bn.Moments().merge(seen)
    copies = [copy.copy(seen), copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))]
    count, mean, m2 = seen
    before = [a.copy() for a in seen]
    seen.update(x + 1).merge(seen)
    assert seen.count.tolist() == [24] * 3
    for now, old in zip((count, mean, m2), before):
        assert np.array_equal(now, old)
    given = [np.array(a) for a in before]
    made = bn.Moments.of(*given)
    for array in (*other, *given):
        array[...] = 99
    for same in (*copies, made):
        assert type(same) is bn.Moments
        unchanged(same, before)
        unchanged(same.update(x + 1).merge(same), list(seen))


def test_nothing_yet(rng: np.random.Generator) -> None:
    seen = bn.Moments((1, 2))
    for read in (
        lambda: seen.count,
        lambda: seen.mean,
        lambda: seen.m2,
        lambda: seen[0],
        lambda: tuple(seen),
        lambda: np.stack(seen),
        seen.var,
        seen.std,
        seen.invstd,
    ):
        with pytest.raises(RuntimeError, match="number of channels is not known before update"):
            read()
    assert repr(pickle.loads(pickle.dumps(seen))) == "Moments(channels=None, values=0)"
    assert seen.merge(bn.Moments()) is seen
    with pytest.raises(ValueError, match="parts is empty"):
        bn.merge_moments([seen])
    assert repr(seen.update(rng.normal(size=(5, 3, 2)))) == "Moments(channels=(3, 2), values=5)"
    known = bn.Moments(num_features=2)
    assert np.stack(known).tolist() == [[0, 0]] * 3
    assert repr(known) == "Moments(channels=2, values=0)"
    assert repr(bn.Moments.of([1, 2.5], [0, 0], [0, 0])) == "Moments(channels=2, values=1 to 2.5)"
    assert np.stack(bn.Moments(num_features=3).update(np.empty((0, 3)))).tolist() == [[0] * 3] * 3


def test_variance_of_too_few_values() -> None:
    """NaN and no warning, whatever NumPy is told to do about such things."""
    seen = bn.Moments.of([0, 0.5, 1, 2, 3, 4], [0] * 6, [0, 1, 0, 8, np.nan, np.inf])
    with np.errstate(all="raise"):
        assert np.array_equal(seen.var(), [np.nan, 2, 0, 4, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.var(True), [np.nan, np.nan, np.nan, 8, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.std(), [np.nan, math.sqrt(2), 0, 2, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.std(True), np.sqrt(seen.var(True)), equal_nan=True)
        assert bn.Moments.of([1e-200], [0], [1e200]).var().tolist() == [np.inf]
    assert np.array_equal(seen.invstd(0.25)[:4], [2, 1 / 1.5, 2, 1 / math.sqrt(4.25)])
    assert np.array_equal(seen.invstd(0), bn.inverse_std(seen.count, seen.m2, 0), equal_nan=True)
    with pytest.raises(ValueError, match="eps"):
        seen.invstd(-1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.update(np.zeros((4, 2))),
            ValueError,
            r"x has channels of shape \(2,\) at axis 1, expected \(3,\)",
        ),
        (lambda m: m.update(np.zeros((0, 2))), ValueError, r"x has channels of shape \(2,\)"),
        (lambda m: m.update(np.zeros(3)), ValueError, "axis 1 is out of range"),
        (lambda m: m.update(np.zeros((4, 3), int)), TypeError, "x has dtype int64"),
        (lambda m: m.update(np.zeros((4, 3)), np.ones(3)), ValueError, r"weights have shape \(3,\), expected \(4,\)"),
        (lambda m: m.update(np.zeros((4, 3)), -np.ones(4)), ValueError, "weights have a value -1"),
        (lambda m: m.update(np.zeros((4, 3)), lengths=[1] * 4), ValueError, "lengths count along .* none in x"),
        (
            lambda m: m.merge(bn.Moments(num_features=4)),
            ValueError,
            r"other has channels of shape \(4,\), expected \(3",
        ),
        (lambda m: m.merge(([1.0], [1.0], [1.0])), ValueError, r"other has channels of shape \(1,\)"),
        (lambda m: m.merge(([1.0] * 3, [1.0] * 3)), ValueError, "other is of 2 parts, expected count, mean and m2"),
        (lambda m: m.merge(([-1.0] * 3, [1.0] * 3, [1.0] * 3)), ValueError, "count has a value -1"),
        (lambda m: m.merge(5), TypeError, "other is of type int, expected Moments"),
    ],
)
def test_an_error_changes_nothing(call: Any, error: type[Exception], message: str) -> None:
    seen = bn.Moments().update(np.arange(12.0).reshape(4, 3))
    before = [a.copy() for a in seen]
    with pytest.raises(error, match=message):
        call(seen)
    unchanged(seen, before)


def test_an_error_teaches_no_channels() -> None:
    seen = bn.Moments()
    with pytest.raises(ValueError, match="weights have shape"):
        seen.update(np.zeros((4, 3)), np.ones(3))
    assert repr(seen.update(np.zeros((4, 2)))) == "Moments(channels=2, values=4)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bn.Moments(1.5), TypeError, "axis is 1.5, expected an int"),
        (lambda: bn.Moments(num_features=0), ValueError, "num_features is 0, expected at least 1"),
        (
            lambda: bn.Moments(num_features=(2, 3)),
            ValueError,
            r"num_features is \(2, 3\) and axis is 1, expected as many",
        ),
        (lambda: bn.Moments((1, 2), 4), ValueError, r"num_features is 4 and axis is \(1, 2\)"),
        (lambda: bn.Moments(num_features=2.5), TypeError, "num_features is 2.5, expected an int"),
        (lambda: bn.Moments.of(1, 2, 3), ValueError, r"mean has shape \(\), expected one element per channel"),
        (lambda: bn.Moments.of([], [], []), ValueError, r"mean has shape \(0,\)"),
        (lambda: bn.Moments.of([1, 2], [1], [1]), ValueError, r"count has shape \(2,\), expected \(1,\)"),
        (lambda: bn.Moments.of([1], [1], [1, 2]), ValueError, r"m2 has shape \(2,\), expected \(1,\)"),
        (lambda: bn.Moments.of([1], [1j], [1]), TypeError, "mean has dtype complex128"),
        (lambda: bn.Moments.of([3, -1], [1, 1], [1, 1]), ValueError, "count has a value -1, expected finite numbers"),
        (lambda: bn.Moments.of([math.inf], [1], [1]), ValueError, "count has a value inf"),
        (lambda: bn.Moments.of([math.nan], [1], [1]), ValueError, "count has a value nan"),
        (
            lambda: bn.Moments.of([1], [1], [-0.5]),
            ValueError,
            "m2 has a value -0.5, expected numbers of at least 0, or",
        ),
        (lambda: bn.Moments.of([1], [1], [1], 1.5), TypeError, "axis is 1.5"),
        (
            lambda: bn.Moments.stream(np.ones((4, 3)), chunk_bytes=0),
            ValueError,
            "chunk_bytes is 0, expected at least 1",
        ),
        (lambda: bn.Moments.stream(np.ones((4, 3)), chunk_bytes=1e6), TypeError, "chunk_bytes is 1000000.0"),
        (lambda: bn.Moments.stream(np.ones((4, 3)), 2), ValueError, "axis 2 is out of range"),
        (
            lambda: bn.Moments.stream(np.ones((4, 3)), progress=1),
            TypeError,
            "progress is 1, expected True, False or None",
        ),
        (lambda: bn.Moments.stream(np.float64(1)), ValueError, "x is a single number"),
        (lambda: bn.Moments.stream(np.ma.ones((4, 3))), TypeError, "x is a masked array"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_sum_is_a_merge(rng: np.random.Generator) -> None:
    x = rng.normal(50, 3, size=(12, 3, 4)).astype("f4")
    parts = [bn.Moments(), *(bn.moments(part) for part in np.split(x, [2, 2, 7])), bn.Moments(num_features=3)]
    kept = copy.deepcopy(parts)
    total = sum(parts)
    assert isinstance(total, bn.Moments)
    check(total, x, (1,))
    step_by_step = bn.Moments()
    for part in parts:
        step_by_step.merge(part)
    assert total == step_by_step
    check(parts[4] + parts[3] + parts[1], np.concatenate([x[7:], x[2:7], x[:2]]), (1,))
    total.update(x)
    (parts[0] + parts[1]).update(x)
    sum([parts[1]]).update(x)  # type: ignore[union-attr]
    assert parts == kept
    assert sum([parts[1]]) == parts[1]


def test_sums_of_what_cannot_be_added() -> None:
    one = bn.moments(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"other has channels of shape \(2,\), expected \(3,\)"):
        one + bn.moments(np.ones((4, 2)))
    for other in (1, 0.0, None, np.ones(3), np.float64(0), (one.count, one.mean, one.m2), "x"):
        for add in (lambda a, b: a + b, lambda a, b: b + a):
            with pytest.raises(TypeError, match=r"operand|oncatenat"):
                add(one, other)
    with pytest.raises(TypeError, match="unsupported operand"):
        one + 0  # type: ignore[operator]


def test_equal_moments(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3, 4))
    one = bn.moments(x)
    assert one == one + bn.Moments() == copy.copy(one) == pickle.loads(pickle.dumps(one))
    # Values of the same channels are the same values wherever the channels lie.
    assert bn.moments(x[:, :, 0]) == bn.moments(np.ascontiguousarray(x[:, :, 0].T), axis=0)
    assert bn.Moments() == bn.Moments(axis=-1) != bn.Moments(num_features=3) == bn.Moments(num_features=3, axis=-1)
    assert one != bn.moments(x[:, :2]) != bn.Moments() != one
    x[0, 1, 2] = math.nan
    of_nan = bn.moments(x)
    assert of_nan == bn.moments(x.copy()) != one
    assert one != tuple(one) != one
    assert one != np.stack(one)
    for name in ("count", "mean", "m2"):
        other = bn.Moments.of(*(a.copy() for a in one))
        getattr(other, name)[1] = np.nextafter(getattr(other, name)[1], 9)
        assert other != one, name
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


class Lazy:
    """As a collection of Dask, or a package's array that may be over one."""

    shape, dtype, graph = (4, 3), np.dtype("f4"), {}

    def __dask_graph__(self) -> Any:
        return self.graph

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.ones((4, 3), "f4")


def test_values_that_are_yet_to_be_computed() -> None:
    lazy = Lazy()
    message = r"^x is of type .*Lazy, and all its blocks would .*: give x.compute\(\) if they fit, else .* sum\(\)"
    for call in (bn.moments, bn.Moments.stream, bn.forward_training, bn.BatchNorm1d(3)):
        with pytest.raises(TypeError, match=message):
            call(lazy)
    lazy.graph = None
    assert bn.moments(lazy).count.tolist() == [4] * 3
