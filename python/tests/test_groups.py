# SPDX-License-Identifier: Apache-2.0
"""Groups of samples: ghost batches, segments, split and conditional; test_combinations.py compares their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from calls import check_training, draw, groups_of

import batchnorm as bn

Array = np.ndarray[Any, Any]


def test_virtual_batches_as_in_keras(rng: np.random.Generator) -> None:
    """tf-keras reshapes (N, ...) to (size, N / size, ...), reduces over size, and averages for the running ones."""
    x = rng.normal(size=(12, 3))
    mean, var = np.zeros(3), np.ones(3)
    y, _ = bn.forward_training(
        x, None, None, running_mean=mean, running_var=var, decay=0.9, unbiased=False, groups=bn.Ghost(4, True, True)
    )
    virtual = x.reshape(4, 3, 3)
    means, variances = virtual.mean(axis=0), virtual.var(axis=0)
    assert np.allclose(y, ((virtual - means) / np.sqrt(variances + 1e-5)).reshape(12, 3), rtol=1e-12)
    assert np.allclose(mean, 0.1 * means.mean(axis=0), rtol=1e-13)
    assert np.allclose(var, 0.9 + 0.1 * variances.mean(axis=0), rtol=1e-13)


def test_running_statistics_of_absent_groups(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    mean, var, counts = rng.normal(size=(3, 3)), rng.uniform(1, 2, (3, 3)), np.array([5, 6, 7])
    kept = mean.copy(), var.copy()
    policy = bn.Running("cumulative", num_batches=counts)
    _, saved = bn.forward_training(
        x, None, None, running_mean=mean, running_var=var, groups=bn.Segments([2, 0, 2, 0], 3), running=policy
    )
    assert np.array_equal(mean[1], kept[0][1])
    assert np.array_equal(var[1], kept[1][1])
    assert (mean[[0, 2]] != kept[0][[0, 2]]).all()
    assert counts.tolist() == [6, 6, 8]
    assert saved.outcome.tolist() == [bn.Outcome.USED, bn.Outcome.EMPTY, bn.Outcome.USED]


@pytest.mark.parametrize("single_value", ["running", "beta"])
def test_groups_of_one_value(rng: np.random.Generator, single_value: str) -> None:
    """One group has a single value, others have more; the single one's statistics are constants, or its x_hat is 0."""
    groups = bn.Segments([1, 0, 0, 3, 0, 3], 4)
    call = draw(rng, (6, 17, 1), "f4", groups, single_value=single_value, residual=True, activation=("relu",))
    policy = bn.Running(single_value=single_value, num_batches=np.zeros(4, np.int64))
    given, saved = check_training(rng, call, "f4", groups=groups, running=policy)
    assert saved.outcome.tolist() == [0, 2 if single_value == "running" else 3, 1, 0]
    (x, gamma, beta, mean, var), more = given.arguments()
    kept = x.copy()
    with pytest.raises(ValueError, match="value"):
        bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, **more, groups=groups, out=x)
    assert np.array_equal(x, kept)


def test_all_groups_of_one_value(rng: np.random.Generator) -> None:
    for groups in (bn.Ghost(1), bn.Split(4), bn.Segments([3, 1, 0, 2], 4)):
        call = draw(rng, (4, 3, 1), groups=groups, single_value="running")
        _, saved = check_training(rng, call, "f8", groups=groups, running=bn.Running(single_value="running"))
        assert saved.outcome.tolist() == [bn.Outcome.RUNNING] * 4
        assert saved.frozen


@pytest.mark.parametrize("axis", [1, -1])
def test_outputs_in_place(rng: np.random.Generator, axis: int) -> None:
    x, dy = rng.normal(size=(2, 8, 4, 4)).astype(np.float32)
    for groups in (bn.Ghost(4, True, True), bn.Segments([2, 0, 0, 2, 0, 2, 2, 0], 3), bn.Split(4, True)):
        expected, saved = bn.forward_training(x, axis=axis, groups=groups)
        gradients = bn.backward(dy, x, saved, axis=axis)
        out, target = x.copy(), dy.copy()
        assert bn.forward_training(out, axis=axis, groups=groups, out=out)[0] is out
        assert np.array_equal(out, expected)
        for given, other in zip(bn.backward(target, x, saved, axis=axis, out=target), gradients):
            assert np.array_equal(given, other)


def test_several_channel_axes(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 8, 3, 4, 5))
    gamma, beta = rng.normal(size=(2, 3, 3, 4))
    groups = bn.Segments([2, 0, 0, 2, 0, 2, 2, 0], 3)
    mean, var = np.zeros((3, 3, 4)), np.ones((3, 3, 4))
    y, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, axis=(1, 2), groups=groups)
    results = bn.backward(dy, x, saved, gamma=gamma, axis=(1, 2))
    flat = [each.reshape(3, 12) for each in (gamma, beta, np.zeros((3, 12)), np.ones((3, 12)))]
    running = {"running_mean": flat[2], "running_var": flat[3]}
    expected, of_flat = bn.forward_training(x.reshape(8, 12, 5), *flat[:2], **running, groups=groups)
    assert np.array_equal(y.reshape(8, 12, 5), expected)
    assert np.array_equal(mean.reshape(3, 12), flat[2])
    assert saved.mean.shape == results[1].shape == (3, 3, 4)
    for given, other in zip(results, bn.backward(dy.reshape(8, 12, 5), x.reshape(8, 12, 5), of_flat, gamma=flat[0])):
        assert np.array_equal(given.reshape(other.shape), other)


def test_empty_batches() -> None:
    for groups in (bn.Ghost(4), bn.Segments([], 3), bn.Split(2), bn.Conditional([], 3)):
        known = groups_of(groups, 0) if not isinstance(groups, bn.Ghost) else {"per_group": 1, "count": 1}
        rows = [
            (known["count"], 5) if known["per_group"] & bit else (5,) for bit in (oracle.PARAMETERS, oracle.RUNNING)
        ]
        gamma, mean, var = np.ones(rows[0]), np.zeros(rows[1]), np.ones(rows[1])
        x = np.zeros((0, 5, 2))
        y, saved = bn.forward_training(x, gamma, gamma, running_mean=mean, running_var=var, groups=groups)
        assert y.shape == x.shape
        dx, dgamma, _ = bn.backward(x, x, saved, gamma=gamma)
        assert dx.shape == x.shape
        assert dgamma.shape == gamma.shape
        assert not dgamma.any()
        assert not mean.any()
        assert (var == 1).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bn.Ghost(0), ValueError, "size is 0, expected at least 1"),
        (lambda: bn.Ghost(2.0), TypeError, "size is 2.0, expected an int"),
        (lambda: bn.Split(0), ValueError, "groups is 0, expected at least 1"),
        (lambda: bn.Segments([0], -1), ValueError, "groups is -1, expected at least 1"),
        (lambda: bn.Conditional([0], "3"), TypeError, "groups is '3', expected an int"),
    ],
)
def test_groups_are_checked_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (2, TypeError, "groups is of type int, expected Ghost, Segments, Split or Conditional"),
        (bn.Ghost(3), ValueError, "groups are of 3 samples, which do not divide the 4 of x"),
        (bn.Ghost(8), ValueError, "groups are of 8 samples, which do not divide the 4 of x"),
        (bn.Split(3), ValueError, "groups are 3, which do not divide the 4 samples of x"),
        (
            bn.Segments([0, 1, 2], 3),
            ValueError,
            r"index has shape \(3,\), expected \(4,\): a group for each sample of x",
        ),
        (bn.Segments([[0, 1, 2, 0]], 3), ValueError, r"index has shape \(1, 4\)"),
        (bn.Segments([0, 1, 3, 0], 3), ValueError, "index has a group 3, expected 0 to 2"),
        (bn.Conditional([0, -1, 2, 0], 3), ValueError, "index has a group -1, expected 0 to 2"),
        (bn.Conditional([0.0, 1, 2, 0], 3), TypeError, "index has dtype float64, expected int32"),
        (bn.Conditional(np.ma.zeros(4, int), 3), TypeError, "index is a masked array"),
    ],
)
def test_what_is_refused(rng: np.random.Generator, groups: Any, error: type[Exception], message: str) -> None:
    x = rng.normal(size=(4, 3, 5))
    mean, var, out = np.zeros(3), np.ones(3), np.full_like(x, 7)
    with pytest.raises(error, match=message):
        bn.forward_training(x, None, None, running_mean=mean, running_var=var, groups=groups, out=out)
    if not isinstance(groups, bn.Ghost):
        with pytest.raises(error, match=message):
            bn.forward_inference(x, None, None, running_mean=mean, running_var=var, groups=groups, out=out)
        with pytest.raises(error, match=message):
            bn.backward(x, x, bn.frozen_statistics(mean, var, groups=groups), out=out)
    assert (out == 7).all()
    assert (mean == 0).all()
    assert (var == 1).all()


def test_shapes_of_rows_are_checked(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 5))
    rows, one = np.ones((2, 3)), np.ones(3)
    split, shared = bn.Split(2), bn.Split(2, shared_parameters=True)
    for arguments, groups, message in [
        ((one, None, rows, rows), split, r"gamma has shape \(3,\), expected \(2, 3\)"),
        ((rows, one, rows, rows), split, r"beta has shape \(3,\), expected \(2, 3\)"),
        ((rows, rows, one, rows), split, r"running_mean has shape \(3,\), expected \(2, 3\)"),
        ((rows, None, rows, rows), shared, r"gamma has shape \(2, 3\), expected \(3,\)"),
        ((one, None, rows, one), shared, r"running_var has shape \(3,\), expected \(2, 3\)"),
        ((one, None, rows, rows), bn.Ghost(2), r"running_mean has shape \(2, 3\), expected \(3,\)"),
        ((rows, None, rows, one), bn.Conditional([0, 1, 1, 0], 2), r"running_mean has shape \(2, 3\), expected \(3,\)"),
    ]:
        named = dict(zip(("gamma", "beta", "running_mean", "running_var"), arguments))
        with pytest.raises(ValueError, match=message):
            bn.forward_training(x, **named, groups=groups)
    assert (rows == 1).all()
    assert (one == 1).all()
    policy = bn.Running(num_batches=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"num_batches has shape \(1,\), expected \(2,\)"):
        bn.forward_training(x, None, None, running_mean=rows, running_var=rows, groups=split, running=policy)
    policy = bn.Running(num_batches=np.zeros(4, np.int64)[::2])
    with pytest.raises(ValueError, match="num_batches is not contiguous: it is updated in place"):
        bn.forward_training(x, None, None, running_mean=rows, running_var=rows, groups=split, running=policy)


def test_samples_along_axis_0(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 5))
    with pytest.raises(ValueError, match="groups are of samples along axis 0, but that is a channel axis"):
        bn.forward_training(x, axis=0, groups=bn.Ghost(2))
    out = np.empty(x.shape, order="F")
    with pytest.raises(ValueError, match="out has strides .* the samples outermost, as they are in groups"):
        bn.forward_training(x, groups=bn.Ghost(2), out=out)
    _, saved = bn.forward_training(x, groups=bn.Ghost(2))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 5\), expected \(4, 3, 5\)"):
        bn.backward(x[:2], x[:2], saved)
