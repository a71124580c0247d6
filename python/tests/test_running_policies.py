# SPDX-License-Identifier: Apache-2.0
"""Policies for running statistics: averages, batches of single and of non-finite values, and the pure form."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest
from calls import DTYPES, Given, check_running, check_training, draw
from helpers import both

import batchnorm as bn

Array = np.ndarray[Any, Any]
AVERAGES = ["exponential", "cumulative", "windowed", "debiased", "filled"]


def test_averages_in_closed_form(rng: np.random.Generator) -> None:
    batches = rng.normal(size=(6, 5, 2))
    means = batches.mean(axis=1)

    def run(average: str, momentum: float = 0.25, **more: Any) -> Array:
        mean, var, count = np.full(2, 100.0), np.ones(2), np.array(0)
        for x in batches:
            policy = bn.Running(average, num_batches=count, **more)
            bn.forward_training(x, None, None, running_mean=mean, running_var=var, momentum=momentum, running=policy)
        assert count == 6
        return mean

    assert np.allclose(run("cumulative"), means.mean(axis=0), rtol=1e-13)
    # The n-th of 6 batches weighs 3/4 as much as the next, and all together 1.
    weights = 0.75 ** np.arange(5, -1, -1)
    assert np.allclose(run("debiased"), (weights[:, None] * means).sum(axis=0) / weights.sum(), rtol=1e-13)
    filled = means[0]
    for batch in means[1:]:
        filled = 0.75 * filled + 0.25 * batch
    assert np.allclose(run("filled"), filled, rtol=1e-13)
    windowed = means[:4].mean(axis=0)
    for batch in means[4:]:
        windowed = 0.75 * windowed + 0.25 * batch
    assert np.allclose(run("windowed"), windowed, rtol=1e-13)
    # With a momentum of 1 the last batch is all that there is, but to those who count.
    for average in AVERAGES:
        expected = means.mean(axis=0) if average == "cumulative" else means[-1]
        assert np.allclose(run(average, 1.0), expected, rtol=1e-13)
    # With 0 only the first counts where it fills, and everything by itself is a matter of 1 / n.
    assert np.allclose(run("filled", 0.0), means[0], rtol=1e-13)
    assert np.allclose(run("windowed", 0.0), means.mean(axis=0), rtol=1e-13)
    assert np.allclose(run("exponential", 0.0), 100)


def test_the_default_is_what_a_call_without_it_does(rng: np.random.Generator) -> None:
    for dtype in ("f8", "f4", "f2"):
        for shape in ((6, 1, 7), (4, 33, 1)):
            given = Given(draw(rng, shape, dtype), dtype)
            (x, gamma, beta, *running), told = given.arguments()
            others = [each.copy() for each in running]
            expected, _ = bn.forward_training(x, gamma, beta, **both(running), **told)
            y, saved = bn.forward_training(x, gamma, beta, **both(others), **told, running=bn.Running())
            assert np.array_equal(y, expected)
            assert np.array_equal(running, others)
            assert saved.outcome is bn.Outcome.USED
            assert saved.num_batches is saved.running_mean is saved.running_var is None


@pytest.mark.parametrize("average", AVERAGES)
def test_pure(rng: np.random.Generator, average: str) -> None:
    given = Given(draw(rng, (4, 17, 7), "f4", average=average, num_batches=np.array([3])), "f4")
    (x, gamma, beta, mean, var), told = given.arguments()
    count = np.array(3, np.int32)
    for array in (mean, var, count):
        array.flags.writeable = False
    kept = mean.copy(), var.copy()
    policy = bn.Running(average, pure=True, num_batches=count)
    _, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var, **told, running=policy)
    assert np.array_equal(kept, (mean, var))
    assert count == 3
    check_running(given, saved.running_mean, saved.running_var, saved.num_batches)
    assert saved.num_batches.dtype == np.int64
    assert saved.running_mean.shape == (17,)
    lists = bn.forward_training(
        x, gamma, beta, running_mean=mean.tolist(), running_var=var.tolist(), **told, running=policy
    )[1]
    assert np.array_equal(lists.running_mean, saved.running_mean)


def test_pure_leaves_what_there_is_not(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    _, saved = bn.forward_training(x, running=bn.Running(pure=True))
    assert saved.running_mean is saved.running_var is saved.num_batches is None
    assert saved.outcome is bn.Outcome.USED
    policy = bn.Running(pure=True, num_batches=[4])
    _, saved = bn.forward_training(x[:0], None, None, running_mean=[1.0] * 3, running_var=[2.0] * 3, running=policy)  # type: ignore[arg-type]
    assert saved.outcome is bn.Outcome.EMPTY
    assert saved.running_mean.tolist() == [1] * 3
    assert saved.running_var.tolist() == [2] * 3
    assert saved.num_batches.tolist() == [4]


@pytest.mark.parametrize("dtype", DTYPES)
def test_bfloat16_running_statistics(rng: np.random.Generator, dtype: str) -> None:
    """Running statistics of 16-bit tensors may be of the tensors' dtype."""
    x = rng.normal(size=(4, 3)).astype(DTYPES[dtype])
    mean, var = np.zeros(3, x.dtype), np.ones(3, x.dtype)
    _, saved = bn.forward_training(x, None, None, running_mean=mean, running_var=var, running=bn.Running(pure=True))
    bn.forward_training(x, None, None, running_mean=mean, running_var=var)
    assert saved.running_mean.dtype == x.dtype
    assert np.array_equal(saved.running_mean, mean)


@pytest.mark.parametrize("single_value", ["running", "beta"])
def test_one_value_per_channel(rng: np.random.Generator, single_value: str) -> None:
    told = {"single_value": single_value, "activation": ("relu",), "residual": True}
    call = draw(rng, (1, 17, 1), "f4", **told, num_batches=np.array([5]))
    policy = bn.Running(single_value=single_value, num_batches=np.array([5]))
    _, saved = check_training(rng, call, "f4", running=policy)
    assert saved.outcome is (bn.Outcome.RUNNING if single_value == "running" else bn.Outcome.BETA)
    assert saved.frozen == (single_value == "running")


@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "error"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite(rng: np.random.Generator, value: float, nonfinite: Any) -> None:
    x = rng.normal(size=(4, 17, 7)).astype(np.float32)
    x[1, 3, 5] = value
    mean, var, count, out = np.zeros(17, "f4"), np.ones(17, "f4"), np.array([2]), np.full_like(x, 7)
    policy = bn.Running(nonfinite=nonfinite, num_batches=count)
    call = partial(bn.forward_training, x, running_mean=mean, running_var=var, running=policy, out=out)
    used = nonfinite == "propagate"
    if nonfinite == "error":
        with pytest.raises(ValueError, match="finite"):
            call()
        assert (out == 7).all()
    else:
        y, saved = call()
        assert np.array_equal(y, bn.forward_training(x)[0], equal_nan=True)
        assert np.isnan(y[:, 3]).all()
        assert saved.outcome is (bn.Outcome.USED if used else bn.Outcome.NONFINITE)
    assert np.isfinite(np.delete(mean, 3)).all()
    assert np.isfinite(mean[3]) != used
    assert np.isnan(var[3]) == used
    assert (mean.any(), count[0]) == (used, 2 + used)


def test_nonfinite_in_place(rng: np.random.Generator) -> None:
    """x is as it was after an error, though it was to be written over."""
    x = rng.normal(size=(4, 3, 50)).astype("f4")
    x[3, 2, 49] = np.nan
    kept = x.copy()
    with pytest.raises(ValueError, match="finite"):
        bn.forward_training(x, running=bn.Running(nonfinite="error"), out=x)
    assert np.array_equal(x, kept, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: bn.Running("average"),
            ValueError,
            "average is 'average', expected one of 'exponential', ",
        ),
        (lambda: bn.Running(3), TypeError, "average is of type int, expected a text"),
        (lambda: bn.Running(single_value="skip"), ValueError, "single_value is 'skip', expected one of 'error'"),
        (lambda: bn.Running(nonfinite=None), TypeError, "nonfinite is of type NoneType"),
    ],
)
def test_policies_are_checked_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


READ_ONLY = np.zeros(1, np.int64)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        ("cumulative", TypeError, "running is of type str, expected Running"),
        (bn.Running("cumulative"), ValueError, "running has average 'cumulative' and no num_batches, which it needs"),
        (bn.Running(num_batches=[0]), TypeError, "num_batches is of type list, expected numpy.ndarray: it is updated"),
        (bn.Running(num_batches=3), TypeError, "num_batches is of type int"),
        (bn.Running(num_batches=np.zeros(1)), TypeError, "num_batches has dtype float64, expected int64"),
        (bn.Running(num_batches=np.zeros(1, "i4")), TypeError, "num_batches has dtype int32, expected int64"),
        (bn.Running(num_batches=np.zeros(2, "i8")), ValueError, r"num_batches has shape \(2,\), expected \(\)"),
        (bn.Running(num_batches=np.zeros((1, 1), "i8")), ValueError, r"num_batches has shape \(1, 1\)"),
        (bn.Running(num_batches=np.array([-1])), ValueError, "num_batches is -1, expected at least 0"),
        (bn.Running(num_batches=READ_ONLY), ValueError, "num_batches is read-only, but it is updated in place"),
        (bn.Running(pure=True, num_batches=[0.5]), TypeError, "num_batches has dtype float64"),
    ],
)
def test_what_is_refused(rng: np.random.Generator, policy: Any, error: type[Exception], message: str) -> None:
    x = rng.normal(size=(4, 3))
    mean, var, out = np.zeros(3), np.ones(3), np.full_like(x, 7)
    with pytest.raises(error, match=message):
        bn.forward_training(x, None, None, running_mean=mean, running_var=var, running=policy, out=out)
    assert (out == 7).all()
    assert (mean == 0).all()
    assert (var == 1).all()


def test_running_statistics_that_are_needed(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 3))
    with pytest.raises(ValueError, match="running_mean|running"):
        bn.forward_training(x, running=bn.Running(single_value="running"))
    with pytest.raises(ValueError, match="running_var is None, but running_mean and running_var go together"):
        bn.forward_training(x, None, None, running_mean=[0.0] * 3, running=bn.Running(pure=True))  # type: ignore[arg-type]
    y, saved = bn.forward_training(x, running=bn.Running(single_value="beta"))
    assert y.tolist() == [[0, 0, 0]]
    assert saved.outcome is bn.Outcome.BETA
    assert oracle.forward(draw(rng, (1, 3, 1), single_value="beta")).of_groups[0].outcome == "beta"
