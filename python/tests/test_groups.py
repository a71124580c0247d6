# SPDX-License-Identifier: Apache-2.0
"""Groups of samples: ghost batches, segments, split and conditional batch normalization, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from calls import (
    DTYPES,
    LAYOUTS,
    Given,
    check_gradients,
    check_running,
    check_training,
    check_y,
    draw,
    gradient,
    groups_of,
)

import batchnorm as bn

Array = np.ndarray[Any, Any]

# Of eight samples.
GROUPS = {
    "ghost": bn.Ghost(2),
    "ghost, one": bn.Ghost(8),
    "ghost, interleaved": bn.Ghost(4, interleaved=True),
    "ghost, averaged": bn.Ghost(2, averaged=True),
    "ghost, as in Keras": bn.Ghost(4, True, True),
    "segments": bn.Segments([2, 0, 0, 2, 0, 2, 2, 0], 3),
    "segments, one": bn.Segments([0] * 8, 1),
    "segments in order": bn.Segments([0, 0, 1, 1, 1, 3, 3, 3], 4),
    "split": bn.Split(2),
    "split, shared": bn.Split(4, shared_parameters=True),
    "conditional": bn.Conditional([4, 1, 1, 0, 2, 4, 4, 0], 5),
    "conditional, one": bn.Conditional([0] * 8, 1),
}
SHAPES = [(8, 1, 7), (8, 3, 49), (8, 17, 1), (8, 33, 7), (8, 3, 100)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GROUPS)
def test_every_shape(rng: np.random.Generator, name: str, dtype: str) -> None:
    for shape in SHAPES:
        groups = GROUPS[name]
        check_training(rng, draw(rng, shape, dtype, groups), dtype, groups=groups)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", GROUPS)
def test_every_layout(rng: np.random.Generator, name: str, layout: str) -> None:
    for dtype in ("f8", "f4", "f2"):
        for shape in ((8, 1, 7), (8, 17, 49), (8, 33, 1)):
            groups = GROUPS[name]
            check_training(rng, draw(rng, shape, dtype, groups), dtype, layout, groups=groups)


@pytest.mark.parametrize("name", GROUPS)
def test_the_oracle_by_finite_differences(rng: np.random.Generator, name: str) -> None:
    for told in ({}, {"activation": ("silu",), "residual": True, "weights": True}):
        call = draw(rng, (8, 2, 3), groups=GROUPS[name], **told)
        dy = gradient(rng, Given(call, "f8"))
        dx, dgamma, dbeta, _ = oracle.backward(call, dy)
        for variable, exact in (("x", dx), ("gamma", dgamma), ("beta", dbeta)):
            assert abs(oracle.by_differences(call, dy, variable) - exact).max() < 1e-6


@pytest.mark.parametrize("dtype", ["f8", "f4", "bf16"])
@pytest.mark.parametrize("masked", ["normalize", "zero", "keep"])
@pytest.mark.parametrize("name", GROUPS)
def test_with_weights_activation_and_residual(rng: np.random.Generator, name: str, masked: str, dtype: str) -> None:
    for layout in ("NCHW", "NHWC", "Fortran"):
        told = {"weights": True, "masked": masked, "activation": ("relu",), "residual": True}
        call = draw(rng, (8, 17, 7), dtype, GROUPS[name], **told)
        check_training(rng, call, dtype, layout, groups=GROUPS[name])
        check_training(rng, call, dtype, layout, groups=GROUPS[name], save_mask=True)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("source", [("blend", 4.0), ("renorm", 1.25, 0.25, 0.75)], ids=str)
@pytest.mark.parametrize("name", GROUPS)
def test_with_a_source(rng: np.random.Generator, name: str, source: Any, dtype: str) -> None:
    for layout in ("NCHW", "NHWC"):
        call = draw(rng, (8, 17, 7), dtype, GROUPS[name], source=source)
        check_training(rng, call, dtype, layout, groups=GROUPS[name])


@pytest.mark.parametrize("name", GROUPS)
def test_with_updated_statistics(rng: np.random.Generator, name: str) -> None:
    """Each ghost batch with what it alone would update the running statistics to."""
    for dtype in ("f8", "f4"):
        call = draw(rng, (8, 17, 7), dtype, GROUPS[name], source=("updated",), momentum=0.25)
        check_training(rng, call, dtype, groups=GROUPS[name])


@pytest.mark.parametrize("average", ["cumulative", "windowed", "debiased", "filled"])
@pytest.mark.parametrize("name", GROUPS)
def test_with_averages_and_counts(rng: np.random.Generator, name: str, average: str) -> None:
    """A row of running statistics has a count of its own; ghost batches count one by one unless averaged."""
    for unbiased in (True, False):
        call = draw(rng, (8, 3, 7), groups=GROUPS[name], average=average, momentum=0.25, unbiased=unbiased)
        call.num_batches = call.num_batches + np.arange(len(call.num_batches))
        policy = bn.Running(average, num_batches=call.num_batches.copy())
        check_training(rng, call, "f8", groups=GROUPS[name], running=policy)
        given = Given(call, "f8")
        (x, gamma, beta, mean, var), told = given.arguments()
        pure = bn.Running(average, num_batches=call.num_batches, pure=True)
        _, saved = bn.forward_training(
            x, gamma, beta, running_mean=mean, running_var=var, **told, groups=GROUPS[name], running=pure
        )
        check_running(given, saved.running_mean, saved.running_var, saved.num_batches)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GROUPS)
def test_inference(rng: np.random.Generator, name: str, dtype: str) -> None:
    groups = GROUPS[name]
    for layout in ("NCHW", "NHWC", "Fortran"):
        call = draw(rng, (8, 17, 7), dtype, groups, activation=("relu",), frozen=True)
        given = Given(call, dtype, layout)
        (x, gamma, beta, mean, var), told = given.arguments()
        told = {key: value for key, value in told.items() if key not in ("momentum", "unbiased")}
        check_y(given, bn.forward_inference(x, gamma, beta, running_mean=mean, running_var=var, **told, groups=groups))
        saved = bn.frozen_statistics(mean, var, call.eps, beta=beta, groups=groups, **given.epilogue())
        dy = gradient(rng, given)
        check_gradients(given, dy, bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis))


def test_each_group_is_a_batch_of_its_own(rng: np.random.Generator) -> None:
    """By plain calls, one for each group."""
    x, dy = rng.normal(size=(2, 8, 3, 5, 2))
    for name, groups in GROUPS.items():
        known = groups_of(groups, 8)
        has_rows = bool(known["per_group"] & oracle.PARAMETERS)
        gamma, beta = rng.normal(size=(2, known["count"], 3))
        given = (gamma, beta) if has_rows else (gamma[0], beta[0])
        y, saved = bn.forward_training(x, *given, groups=groups)
        dx, dgamma, dbeta = bn.backward(dy, x, saved, gamma=given[0])
        assert saved.mean.shape == ((known["count"], 3) if known["per_group"] & oracle.STATISTICS else (3,))
        assert dgamma.shape == dbeta.shape == given[0].shape
        if isinstance(groups, bn.Conditional):
            plain, of_plain = bn.forward_training(x)
            scale, shift = (each[known["of_sample"]][:, :, None, None] for each in (gamma, beta))
            assert np.allclose(y, plain * scale + shift, rtol=1e-12, atol=1e-13)
            assert np.allclose(dx, bn.backward(dy * scale, x, of_plain)[0], rtol=1e-12, atol=1e-12)
            continue
        total = 0
        for group in range(known["count"]):
            samples = known["of_sample"] == group
            row = group if has_rows else 0
            if samples.any():
                part, of_part = bn.forward_training(x[samples], gamma[row], beta[row])
                results = bn.backward(dy[samples], x[samples], of_part, gamma=gamma[row])
                assert np.allclose(y[samples], part, rtol=1e-12, atol=1e-13), name
                assert np.allclose(dx[samples], results[0], rtol=1e-12, atol=1e-12), name
                total = total + results[1]
                if has_rows:
                    assert np.allclose(dgamma[group], results[1], rtol=1e-12)
                    assert np.allclose(dbeta[group], results[2], rtol=1e-12, atol=1e-13)
            elif has_rows:
                assert not dgamma[group].any()
                assert not dbeta[group].any()
        if not has_rows:
            assert np.allclose(dgamma, total, rtol=1e-12)


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


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("single_value", ["running", "beta"])
@pytest.mark.parametrize("residual", [None, True])
def test_groups_of_one_value(rng: np.random.Generator, residual: Any, single_value: str, dtype: str) -> None:
    """One group has a single value, others have more; the single one's statistics are constants, or its x_hat is 0."""
    groups = bn.Segments([1, 0, 0, 3, 0, 3], 4)
    told = {"single_value": single_value, "residual": residual, "activation": ("relu",)}
    for layout in ("NCHW", "NHWC", "Fortran"):
        call = draw(rng, (6, 17, 1), dtype, groups, **told)
        policy = bn.Running(single_value=single_value, num_batches=np.zeros(4, np.int64))
        given, saved = check_training(rng, call, dtype, layout, groups=groups, running=policy)
        assert saved.outcome.tolist() == [0, 2 if single_value == "running" else 3, 1, 0]
        (x, gamma, beta, mean, var), more = given.arguments()
        if layout == "Fortran":
            continue  # which cannot be written in place
        kept = x.copy()
        with pytest.raises(ValueError, match="value"):
            bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, **more, groups=groups, out=x)
        assert np.array_equal(x, kept)
        dy = gradient(rng, given)
        target = given.tensor(dy)
        expected = bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis)
        for one, other in zip(bn.backward(target, x, saved, gamma=gamma, axis=given.axis, out=target), expected):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHWC, seen as NCHW", "every second sample"])
def test_groups_of_one_position_that_counts(rng: np.random.Generator, layout: str) -> None:
    """The same with more positions than one, which lie in memory as they do."""
    groups = bn.Segments([1, 0, 0, 3, 0, 3], 4)
    weights = rng.choice([1.0, 2, 3], (6, 7))
    weights[0] = [0, 0, 0, 2, 0, 0, 0]
    for dtype in ("f8", "f4", "f2"):
        told = {"single_value": "running", "residual": True, "activation": ("relu",), "masked": "zero"}
        call = draw(rng, (6, 5, 7), dtype, groups, weights=weights, **told)
        policy = bn.Running(single_value="running", num_batches=np.zeros(4, np.int64))
        given, saved = check_training(rng, call, dtype, layout, groups=groups, running=policy)
        assert saved.outcome.tolist() == [0, 2, 1, 0]
        (x, gamma, _, _, _), _ = given.arguments()
        dy = gradient(rng, given)
        expected = bn.backward(given.tensor(dy), x, saved, gamma=gamma, axis=given.axis)
        for name in ("out", "residual_out"):
            target = given.tensor(dy)
            results = bn.backward(target, x, saved, gamma=gamma, axis=given.axis, **{name: target})
            for one, other in zip(results, expected):
                assert np.array_equal(one, other)


def test_all_groups_of_one_value(rng: np.random.Generator) -> None:
    for groups in (bn.Ghost(1), bn.Split(4), bn.Segments([3, 1, 0, 2], 4)):
        call = draw(rng, (4, 3, 1), groups=groups, single_value="running")
        _, saved = check_training(rng, call, "f8", groups=groups, running=bn.Running(single_value="running"))
        assert saved.outcome.tolist() == [bn.Outcome.RUNNING] * 4
        assert saved.frozen


@pytest.mark.parametrize("name", GROUPS)
def test_outputs_in_place(rng: np.random.Generator, name: str) -> None:
    for dtype in (np.float32, np.float16):
        for axis in (1, -1):
            x, dy = rng.normal(size=(2, 8, 4, 4)).astype(dtype)
            expected, saved = bn.forward_training(x, axis=axis, groups=GROUPS[name])
            gradients = bn.backward(dy, x, saved, axis=axis)
            out, target = x.copy(), dy.copy()
            assert bn.forward_training(out, axis=axis, groups=GROUPS[name], out=out)[0] is out
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
