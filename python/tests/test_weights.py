# SPDX-License-Identifier: Apache-2.0
"""Weights, masks and lengths: ways to give them, what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from calls import LAYOUTS, Given, check_gradients, check_y, draw, gradient, near

import batchnorm as bn

Array = np.ndarray[Any, Any]
MASKED = ["normalize", "zero", "keep"]


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps(rng: np.random.Generator, layout: str, masked: str) -> None:
    call = draw(rng, (4, 17, 7), "f4", weights=True, masked=masked)
    given = Given(call, "f4", layout)
    (x, gamma, beta, mean, var), _ = given.arguments()
    told = {"axis": given.axis, "weights": given.weights(), "masked": masked}
    count, batch_mean, m2 = bn.moments(x, given.axis, weights=given.weights())
    w, exact_mean, exact_var = oracle.moments(call.x, call.w)
    near(count, np.full(17, w), w, np.float64)
    near(batch_mean, exact_mean, abs(call.x).max(), np.float64)
    near(m2, exact_var * w, (exact_var * w).max(), np.float64)
    invstd = bn.inverse_std(count, m2, call.eps)
    check_y(given, bn.normalize(x, batch_mean, invstd, gamma, beta, **told))
    dy = gradient(rng, given)
    sums = bn.backward_reduce(given.tensor(dy), x, batch_mean, invstd, **told)
    dx = bn.backward_apply(given.tensor(dy), x, batch_mean, invstd, count, *sums, gamma, **told)
    check_gradients(given, dy, (dx, sums.sum_dy_x_hat.astype(given.param), sums.sum_dy.astype(given.param)))
    bn.update_running(mean, var, count, batch_mean, m2, momentum=call.momentum)
    for array, exact in zip((mean, var), oracle.updated(call)):
        near(array, exact[0], 10, given.param)


@pytest.mark.parametrize("masked", ["zero", "keep"])
def test_what_lies_under_a_mask_does_not_matter(rng: np.random.Generator, masked: str) -> None:
    """Only last bits may differ: the pivot of a sum may have been found under the mask."""
    for dtype in (np.float64, np.float32, np.float16):
        unit, top = float(np.finfo(dtype).eps), float(np.finfo(dtype).max)
        for axis, shape in ((1, (4, 3, 50)), (2, (4, 50, 3)), (1, (4, 3, 2000)), (2, (4, 2000, 3))):
            x, dy = rng.normal(size=(2, *shape)).astype(dtype)
            counts = rng.random((4, max(shape[1:]))) < 0.5
            where = np.broadcast_to(np.expand_dims(counts, axis), shape)
            y, saved = bn.forward_training(x, axis=axis, weights=counts, masked=masked)
            gradients = bn.backward(dy, x, saved, axis=axis)
            for value in (np.nan, np.inf, -top, top / 3, min(1e30, top / 9), -60000, 0):
                hidden = np.where(where, x, dtype(value))
                other, of_hidden = bn.forward_training(hidden, axis=axis, weights=counts, masked=masked)
                assert np.allclose(saved.mean, of_hidden.mean, rtol=1e-13, atol=1e-15)
                assert np.allclose(saved.invstd, of_hidden.invstd, rtol=1e-13, atol=0)
                assert np.allclose(y[where].astype(float), other[where].astype(float), rtol=4 * unit, atol=4 * unit)
                kept = np.zeros_like(x) if masked == "zero" else hidden
                assert np.array_equal(other[~where], kept[~where], equal_nan=True)
                for given, expected in zip(bn.backward(dy, hidden, of_hidden, axis=axis), gradients):
                    assert np.allclose(given.astype(float), expected.astype(float), rtol=64 * unit, atol=64 * unit)


def test_weights_are_frequencies(rng: np.random.Generator) -> None:
    """A sample of weight 3 is three samples, also to the unbiased variance."""
    x, times = rng.normal(size=(5, 3)), np.array([1, 3, 0, 2, 1])
    means, variances = np.zeros((2, 3)), np.ones((2, 3))
    _, saved = bn.forward_training(x, None, None, running_mean=means[0], running_var=variances[0], weights=times)
    _, expected = bn.forward_training(
        np.repeat(x, times, axis=0), None, None, running_mean=means[1], running_var=variances[1]
    )
    assert np.allclose(saved.mean, expected.mean, rtol=1e-14, atol=1e-15)
    assert np.allclose(saved.invstd, expected.invstd, rtol=1e-14, atol=0)
    assert np.allclose(means[0], means[1], rtol=1e-14, atol=1e-15)
    assert np.allclose(variances[0], variances[1], rtol=1e-14, atol=0)
    count, _, _ = bn.moments(x, weights=times)
    assert count.tolist() == [7] * 3


def test_ways_to_give_the_same_weights(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 5, 2)).astype("f4")
    per_sample, mask = rng.uniform(0, 2, 4).astype("f4"), rng.random((4, 5, 2)) < 0.7
    expected, _ = bn.forward_training(x, weights=np.broadcast_to(per_sample[:, None, None], (4, 5, 2)))
    for weights in (per_sample[:, None, None], per_sample.reshape(4, 1, 1, 1), per_sample[:, None, None].astype(float)):
        assert np.array_equal(bn.forward_training(x, weights=weights)[0], expected)
    expected, _ = bn.forward_training(x, weights=mask.astype("f4"))
    for weights in (mask, mask[:, None], mask.tolist(), mask.astype(int), mask.astype("u1"), np.asfortranarray(mask)):
        assert np.array_equal(bn.forward_training(x, weights=weights)[0], expected)
    last = np.moveaxis(x, 1, -1)
    y, _ = bn.forward_training(last, axis=-1, weights=mask[..., None])
    assert np.array_equal(np.moveaxis(y, -1, 1), expected)
    # Two channel axes, which the weights do not have, or of length 1.
    few = mask[:, 0]
    expected, _ = bn.forward_training(x.reshape(4, 15, 2), weights=few)
    for weights in (few, few[:, None, None]):
        assert np.array_equal(bn.forward_training(x, axis=(1, 2), weights=weights)[0].reshape(4, 15, 2), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize("masked", MASKED)
def test_lengths(rng: np.random.Generator, masked: str, dtype: str) -> None:
    for axis, shape in ((1, (5, 3, 11)), (2, (5, 11, 3)), (-1, (5, 11, 3))):
        x, dy = rng.normal(size=(2, *shape)).astype(dtype)
        for lengths in ([11, 0, 3, 1, 7], np.array([11, 11, 11, 11, 11], "u1"), np.array([2, 0, 0, 0, 0])):
            mask = np.arange(11) < np.asarray(lengths)[:, None]
            expected, of_mask = bn.forward_training(x, axis=axis, weights=mask, masked=masked)
            y, saved = bn.forward_training(x, axis=axis, lengths=lengths, masked=masked)
            assert np.array_equal(y, expected)
            for given, other in zip(bn.backward(dy, x, saved, axis=axis), bn.backward(dy, x, of_mask, axis=axis)):
                assert np.array_equal(given, other)
            for given, other in zip(bn.moments(x, axis, lengths=lengths), bn.moments(x, axis, weights=mask)):
                assert np.array_equal(given, other)


def test_one_value_is_one_value(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    mean, var = np.zeros(3), np.ones(3)
    for weights in ([0, 5, 0, 0], [0, 0.5, 0, 0]):
        with pytest.raises(ValueError, match="value|weight"):
            bn.forward_training(x, None, None, running_mean=mean, running_var=var, weights=weights)
    # A sum of at most 1 is none to estimate a variance with, but one to normalize with.
    with pytest.raises(ValueError, match="value|weight"):
        bn.forward_training(x, None, None, running_mean=mean, running_var=var, weights=[0.25, 0.5, 0, 0])
    assert mean.tolist() == [0] * 3
    assert var.tolist() == [1] * 3
    bn.forward_training(x, None, None, running_mean=mean, running_var=var, weights=[0.25, 0.5, 0, 0], unbiased=False)
    bn.forward_training(x, weights=[0.25, 0.5, 0, 0])
    assert mean.any()


def test_empty_tensors() -> None:
    for shape, weights in (((0, 3, 5), np.ones((0, 5))), ((4, 3, 0), np.ones((4, 0))), ((0, 3, 5), np.ones((1, 5)))):
        x = np.zeros(shape)
        y, saved = bn.forward_training(x, weights=weights)
        assert y.shape == shape
        assert bn.backward(x, x, saved)[0].shape == shape
        assert bn.moments(x, weights=weights).count.tolist() == [0] * 3


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        ({"weights": np.ones((4, 4))}, ValueError, r"weights have shape \(4, 4\), expected \(4, 5\) or \(4, 1, 5\)"),
        ({"weights": np.ones((4, 3, 5))}, ValueError, r"weights have shape \(4, 3, 5\), expected \(4, 5\)"),
        ({"weights": np.ones(5)}, ValueError, r"weights have shape \(5,\)"),
        ({"weights": 1.0}, ValueError, r"weights have shape \(\)"),
        ({"weights": -np.ones((4, 5))}, ValueError, "weights have a value -1.0, expected finite ones of at least 0"),
        ({"weights": np.full((4, 5), np.nan)}, ValueError, "weights have a value nan"),
        ({"weights": np.full((4, 5), np.inf)}, ValueError, "weights have a value inf"),
        ({"weights": np.full((4, 5), 1e200)}, ValueError, r"weights have a value 1e\+200, which is beyond float32"),
        ({"weights": np.full((4, 5), 1j)}, TypeError, "weights have dtype complex128, expected bool or real numbers"),
        ({"weights": np.full((4, 5), "1")}, TypeError, "weights have dtype <U1"),
        ({"weights": np.ma.ones((4, 5))}, TypeError, "weights is a masked array"),
        ({"weights": np.ones((4, 5)), "masked": "drop"}, ValueError, "masked is 'drop', expected one of 'normalize'"),
        ({"weights": np.ones((4, 5)), "masked": 1}, TypeError, "masked is of type int, expected a text"),
        ({"lengths": [1, 2, 3, 4], "weights": np.ones((4, 5))}, ValueError, "weights and lengths .* give one of them"),
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths have shape \(3,\), expected \(4,\): one for each sample"),
        ({"lengths": 3}, ValueError, r"lengths have shape \(\)"),
        ({"lengths": [1, 2, 3, 6]}, ValueError, "lengths have a value 6, expected 0 to 5"),
        ({"lengths": [1, -2, 3, 5]}, ValueError, "lengths have a value -2, expected 0 to 5"),
        ({"lengths": [1.0, 2, 3, 4]}, TypeError, "lengths have dtype float64, expected ints"),
    ],
)
def test_what_is_refused(rng: np.random.Generator, told: Any, error: type[Exception], message: str) -> None:
    x = rng.normal(size=(4, 3, 5)).astype("f4")
    mean, var, out = np.zeros(3, "f4"), np.ones(3, "f4"), np.full_like(x, 7)
    for call in (
        lambda: bn.forward_training(x, None, None, running_mean=mean, running_var=var, out=out, **told),
        lambda: bn.forward_inference(x, None, None, running_mean=mean, running_var=var, out=out, **told),
        lambda: bn.normalize(x, np.zeros(3), np.ones(3), out=out, **told),
        lambda: bn.backward_reduce(x, x, np.zeros(3), np.ones(3), **told),
        lambda: bn.backward_apply(x, x, *[np.ones(3)] * 5, out=out, **told),
        lambda: bn.backward(x, x, bn.frozen_statistics(mean, var, **told), out=out),
    ):
        with pytest.raises(error, match=message):
            call()
    if "masked" not in told:
        with pytest.raises(error, match=message):
            bn.moments(x, **told)
    assert (out == 7).all()
    assert (mean == 0).all()
    assert (var == 1).all()


def mask_by_hand(shape: tuple[int, ...], lengths: list[int], time: int) -> Array:
    """1 for the first positions along the axis `time` of each sample."""
    mask = np.zeros(shape)
    for sample, length in enumerate(lengths):
        np.moveaxis(mask, time, 1)[sample, :length] = 1
    return mask


@pytest.mark.parametrize(
    ("shape", "axis", "time"),
    [
        ((3, 4, 5, 6), 1, 3),  # spectrograms: samples, channels, frequencies, times
        ((3, 6, 5, 4), 3, 1),  # samples, times, frequencies, channels
        ((3, 6, 5, 4), -1, 1),
        ((3, 4, 2, 5, 6), 1, 4),
        ((3, 6, 2, 5, 4), 4, 1),
        ((3, 2, 4, 5, 6), 2, 4),  # channels further in: farthest is farthest
        ((3, 4, 2, 5, 6), (1, 2), 4),
        ((3, 6, 5, 4, 2), (3, 4), 1),
        ((3, 4, 6), 1, 2),
        ((3, 6, 4), 2, 1),
    ],
)
def test_lengths_count_along_the_axis_farthest_from_the_channels(
    rng: np.random.Generator, shape: tuple[int, ...], axis: Any, time: int
) -> None:
    x, dy = rng.normal(size=(2, *shape))
    lengths = [6, 1, 4]
    channels = tuple(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    mask = mask_by_hand(shape, lengths, time)
    mask = mask[tuple(slice(1) if a in channels else slice(None) for a in range(len(shape)))]
    for masked in ("normalize", "zero", "keep"):
        y, saved = bn.forward_training(x, axis=axis, lengths=lengths, masked=masked)
        expected, of_mask = bn.forward_training(x, axis=axis, weights=mask, masked=masked)
        assert np.array_equal(y, expected)
        for got, exact in zip(bn.backward(dy, x, saved), bn.backward(dy, x, of_mask)):
            assert np.array_equal(got, exact)
    assert np.array_equal(bn.moments(x, axis, lengths=lengths).count, bn.moments(x, axis, weights=mask).count)
    steps = bn.moments(x, axis, lengths=lengths)
    summed = bn.backward_reduce(dy, x, steps.mean, steps.invstd(), axis=axis, lengths=lengths, masked="zero")
    of_weights = bn.backward_reduce(dy, x, steps.mean, steps.invstd(), axis=axis, weights=mask, masked="zero")
    assert np.array_equal(summed, of_weights)


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((4, 3), 1, "lengths count along the axis .* but that is none in x"),
        ((4, 5, 3, 5), 2, "but that is 1 or 3 in x .* give weights"),
        ((4, 3, 5), 0, "lengths are of samples along axis 0"),
    ],
)
def test_lengths_without_one_axis_to_count_along(shape: tuple[int, ...], axis: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bn.forward_training(np.zeros(shape), axis=axis, lengths=[1, 2, 3, 4])
