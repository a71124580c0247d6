# SPDX-License-Identifier: Apache-2.0
"""Other sources of statistics than the batch: blends, renormalization, updated running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import both

import batchnorm as bn

Array = np.ndarray[Any, Any]


def test_limits_that_leave_nothing_are_plain_normalization(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 5, 7))
    mean, var = rng.normal(size=5), rng.uniform(1, 2, 5)
    expected, plain = bn.forward_training(x)
    for source in (bn.Renorm(1, 0, 1), bn.Blend(0)):
        y, saved = bn.forward_training(x, None, None, running_mean=mean.copy(), running_var=var.copy(), source=source)
        assert np.allclose(y, expected, rtol=1e-13, atol=1e-13)
        for given, other in zip(bn.backward(dy, x, saved), bn.backward(dy, x, plain)):
            assert np.allclose(given, other, rtol=1e-12, atol=1e-13)


def test_no_limits_are_the_running_statistics(rng: np.random.Generator) -> None:
    """Without clipping y is what inference gives."""
    x = rng.normal(size=(6, 5, 7))
    mean, var = rng.normal(size=5), rng.uniform(1, 2, 5)
    expected = bn.forward_inference(x, None, None, running_mean=mean, running_var=var)
    for source in (bn.Renorm(), bn.Blend(1e15)):
        y, _ = bn.forward_training(x, None, None, running_mean=mean.copy(), running_var=var.copy(), source=source)
        assert np.allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_a_blend_counts_values_or_samples(rng: np.random.Generator) -> None:
    """Running statistics of the first samples, blended with those of the others, are those of all."""
    for shape, axis in (((12, 5), 1), ((12, 5, 7), 1), ((12, 3, 4, 5), -1)):
        x = rng.normal(size=shape) + 3
        others = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        first = x[:8].mean(axis=others), x[:8].var(axis=others)
        kept = [each.copy() for each in first]
        values = 8 * x[0].size // 5
        y, of_values = bn.forward_training(
            x[8:], **both(first), axis=axis, momentum=0, source=bn.Blend(pseudo_count=values)
        )
        of_samples, saved = bn.forward_training(
            x[8:], **both(first), axis=axis, momentum=0, source=bn.Blend(pseudo_samples=8)
        )
        assert np.array_equal(y, of_samples)
        for one, other in zip(bn.backward(x[8:], x[8:], of_values), bn.backward(x[8:], x[8:], saved)):
            assert np.array_equal(one, other)
        mean = x.mean(axis=others)
        spread = x[:8].mean(axis=others) - x[8:].mean(axis=others)
        # The variances are averaged, without what the means differ by.
        var = x.var(axis=others) - spread**2 * 8 * 4 / 12**2
        shape = [5 if a == axis % x.ndim else 1 for a in range(x.ndim)]
        exact = (x[8:] - mean.reshape(shape)) / np.sqrt(var + 1e-5).reshape(shape)
        assert np.allclose(y, exact, rtol=1e-12, atol=1e-12)
        assert np.array_equal(kept, first)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
@pytest.mark.parametrize("source", [bn.Blend(pseudo_count=4), bn.Blend(pseudo_samples=4)])
def test_a_blend_of_one_value(rng: np.random.Generator, source: bn.Blend, shape: tuple[int, ...]) -> None:
    """Four values of the running mean and variance and one more, whose variance is 0: as the formula says."""
    x, dy = rng.normal(size=(2, *shape))
    gamma, beta, mean = rng.normal(size=(3, 3))
    var = rng.uniform(1, 2, 3)
    kept = mean.copy(), var.copy()
    running = both((mean, var))

    def blended(x: Array) -> Array:
        hat = (x.reshape(3) - (4 * mean + x.reshape(3)) / 5) / np.sqrt(4 / 5 * var + 1e-5)
        return (gamma * hat + beta).reshape(shape)

    y, saved = bn.forward_training(x, gamma, beta, **running, source=source, running=bn.Running())
    assert np.allclose(y, blended(x), rtol=1e-13, atol=1e-13)
    assert saved.outcome is bn.Outcome.BLENDED
    assert np.array_equal(kept, (mean, var))
    dx, dgamma, dbeta = bn.backward(dy, x, saved)
    slope = (blended(x + 1e-4) - blended(x - 1e-4)) / 2e-4
    assert np.allclose(dx, dy * slope, rtol=1e-8, atol=1e-10)
    assert np.allclose(dbeta, dy.reshape(3), rtol=1e-13)
    assert np.allclose(dgamma, (dy * (y - beta.reshape(y[0].shape)) / gamma.reshape(y[0].shape)).reshape(3), rtol=1e-10)


def test_the_schedule_of_the_paper() -> None:
    assert bn.renorm_limits(0) == bn.renorm_limits(5_000) == (1, 0)
    assert bn.renorm_limits(40_000) == bn.renorm_limits(10**9) == (3, 5)
    assert bn.renorm_limits(15_000) == (1 + 2 * 10 / 35, 2.5)
    assert bn.renorm_limits(25_000) == (1 + 2 * 20 / 35, 5)
    with pytest.raises(TypeError, match="step is of type str"):
        bn.renorm_limits("1")  # type: ignore[arg-type]


def test_outputs_in_place(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 5, 7)).astype("f4")
    running = np.zeros(5, "f4"), np.ones(5, "f4")
    for source in (bn.Blend(4), bn.Renorm(2, 1), bn.Updated()):
        expected, _ = bn.forward_training(x, **both([each.copy() for each in running]), source=source)
        out = x.copy()
        y, saved = bn.forward_training(out, **both([each.copy() for each in running]), source=source, out=out)
        assert y is out
        assert np.array_equal(y, expected)
        target = dy.copy()
        dx, _, _ = bn.backward(dy, x, saved)
        assert np.array_equal(bn.backward(target, x, saved, out=target)[0], dx)


def test_pure_running_statistics(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 5, 7))
    mean, var = rng.normal(size=5), rng.uniform(1, 2, 5)
    for source in (bn.Blend(4), bn.Renorm(2, 1), bn.Updated()):
        y, saved = bn.forward_training(
            x, None, None, running_mean=mean, running_var=var, source=source, running=bn.Running(pure=True)
        )
        given = mean.copy(), var.copy()
        expected, of_expected = bn.forward_training(x, **both(given), source=source)
        assert np.array_equal(y, expected)
        assert np.array_equal((saved.running_mean, saved.running_var), given)
        for one, other in zip(bn.backward(dy, x, saved), bn.backward(dy, x, of_expected)):
            assert np.array_equal(one, other)


def test_empty_and_single_batches(rng: np.random.Generator) -> None:
    for source in (bn.Blend(4), bn.Renorm(2, 1), bn.Updated()):
        mean, var = np.full(3, 2.0), np.full(3, 4.0)
        x = np.zeros((0, 3, 5))
        y, saved = bn.forward_training(x, None, None, running_mean=mean, running_var=var, source=source)
        assert y.shape == x.shape
        assert bn.backward(x, x, saved)[1].tolist() == [0, 0, 0]
        one = rng.normal(size=(1, 3))
        if not isinstance(source, bn.Blend):
            with pytest.raises(ValueError, match="value"):
                bn.forward_training(one, None, None, running_mean=mean, running_var=var, source=source)
        policy = bn.Running(single_value="running")
        y, saved = bn.forward_training(
            one, None, None, running_mean=mean, running_var=var, source=source, running=policy
        )
        assert saved.outcome is bn.Outcome.RUNNING
        assert np.allclose(y, (one - 2) / np.sqrt(4 + 1e-5), rtol=1e-14)
        assert np.allclose(bn.backward(one, one, saved)[0], one / np.sqrt(4 + 1e-5), rtol=1e-14)
        assert mean.tolist() == [2] * 3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bn.Blend(-1), ValueError, "pseudo_count is -1.0, expected a finite number of at least 0"),
        (lambda: bn.Blend(np.inf), ValueError, "pseudo_count is inf"),
        (lambda: bn.Blend("1"), TypeError, "pseudo_count is of type str"),
        (lambda: bn.Blend(), ValueError, "pseudo_count and pseudo_samples are not given, expected one of them"),
        (lambda: bn.Blend(1, 2), ValueError, "pseudo_count and pseudo_samples are both given, expected one of them"),
        (lambda: bn.Blend(pseudo_samples=np.nan), ValueError, "pseudo_samples is nan, expected a finite number of at"),
        (lambda: bn.Blend(pseudo_samples=[1]), TypeError, "pseudo_samples has shape"),
        (lambda: bn.Renorm(0.5), ValueError, "r_max is 0.5, expected at least 1"),
        (lambda: bn.Renorm(np.nan), ValueError, "r_max is nan"),
        (lambda: bn.Renorm(2, -1), ValueError, "d_max is -1.0, expected at least 0"),
        (lambda: bn.Renorm(2, 1, 1.5), ValueError, "r_min is 1.5, expected a number from 0 to 1"),
        (lambda: bn.Renorm(2, 1, [0]), TypeError, "r_min has shape"),
    ],
)
def test_sources_are_checked_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_repr_is_the_call() -> None:
    assert repr(bn.Blend(3)) == "Blend(pseudo_count=3)"
    assert repr(bn.Blend(pseudo_samples=0.5)) == "Blend(pseudo_samples=0.5)"


def test_what_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    mean, var, out = np.zeros(3), np.ones(3), np.full_like(x, 7)
    for source, error, message in (
        ("renorm", TypeError, "source is of type str, expected Blend, Renorm or Updated"),
        (bn.Renorm, TypeError, "source is of type type"),
    ):
        with pytest.raises(error, match=message):
            bn.forward_training(x, None, None, running_mean=mean, running_var=var, source=source, out=out)  # type: ignore[arg-type]
    for source in (bn.Blend(1), bn.Renorm(), bn.Updated()):
        with pytest.raises(ValueError, match="running_mean is None, but the source .* needs it"):
            bn.forward_training(x, source=source, out=out)
    with pytest.raises(
        ValueError, match="Blend with pseudo_samples, which are along axis 0, but that is a channel axis"
    ):
        bn.forward_training(
            x,
            None,
            None,
            running_mean=np.zeros(4),
            running_var=np.ones(4),
            axis=0,
            source=bn.Blend(pseudo_samples=1),
            out=out,
        )
    assert (out == 7).all()
    assert (mean == 0).all()
    assert (var == 1).all()


def test_the_schedule_begins_with_ordinary_batch_norm(rng: np.random.Generator) -> None:
    """However far the running statistics are: r is held at 1 from both sides, and d at 0."""
    x = rng.normal(3, 0.01, size=(64, 3))
    plain, _ = bn.forward_training(x)
    for step in (0, 5_000):
        source = bn.Renorm(*bn.renorm_limits(step))
        assert source.least_r == 1
        y, _ = bn.forward_training(x, None, None, running_mean=np.zeros(3), running_var=np.ones(3), source=source)
        np.testing.assert_array_equal(y, plain)
    assert bn.Renorm(4).least_r == 0.25
    assert bn.Renorm(4, r_min=0).least_r == 0
    with pytest.raises(ValueError, match="step is nan"):
        bn.renorm_limits(float("nan"))
    assert bn.renorm_limits(float("inf")) == (3, 5)
