# SPDX-License-Identifier: Apache-2.0
"""A batch in parts gives what the whole batch gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import DTYPES, LAYOUTS, Given, check_gradients, check_running, check_y, draw, gradient

import batchnorm as bn

Array = np.ndarray[Any, Any]
BORDERS = [[0, 6], [0, 1, 6], [0, 0, 2, 2, 5, 6], list(range(7))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [None, True])
@pytest.mark.parametrize("borders", BORDERS, ids=str)
def test_parts_and_the_whole(rng: np.random.Generator, borders: list[int], weights: Any, dtype: str) -> None:
    for layout in LAYOUTS:
        call = draw(rng, (6, 17, 7), dtype, weights=weights)
        given = Given(call, dtype, layout)
        (x, gamma, beta, mean, var), _ = given.arguments()
        parts = [np.s_[a:b] for a, b in zip(borders, borders[1:])]
        w = given.weights()
        dy = given.tensor(gradient(rng, given))
        batch = bn.MicroBatches(given.axis, call.eps)
        for part in parts:
            batch.add(x[part], None if w is None else w[part])
        y = [batch.normalize(x[part], gamma, beta) for part in parts]
        check_y(given, np.concatenate([np.asarray(each) for each in y]))
        for part in parts:
            batch.add_gradient(dy[part], x[part])
        dx = [batch.apply_gradient(dy[p], x[p], gamma, weights=None if w is None else w[p]) for p in parts]
        sums = (batch.dgamma.astype(given.param), batch.dbeta.astype(given.param))  # type: ignore[union-attr]
        check_gradients(given, given.back(dy), (np.concatenate([np.asarray(each) for each in dx]), *sums))
        batch.update_running(mean, var, momentum=call.momentum)
        check_running(given, mean, var)


def test_outputs_in_place(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 5, 7)).astype("f4")
    expected, saved = bn.forward_training(x)
    gradients = bn.backward(dy, x, saved)
    batch = bn.MicroBatches()
    for part in (x[:2], x[2:]):
        batch.add(part)
    y = x.copy()
    assert batch.normalize(y[:2], out=y[:2]).base is not None
    batch.normalize(y[2:], out=y[2:])
    assert np.allclose(y, expected, rtol=0, atol=1e-6)
    for part in (np.s_[:2], np.s_[2:]):
        batch.add_gradient(dy[part], x[part])
    for part in (np.s_[:2], np.s_[2:]):
        batch.apply_gradient(dy[part], x[part], out=dy[part])
    assert np.allclose(dy, gradients[0], rtol=0, atol=1e-5)
    assert np.allclose(batch.mean, saved.mean, rtol=1e-13)
    assert np.allclose(batch.invstd, saved.invstd, rtol=1e-13)


def test_more_may_be_added_later(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 5, 7))
    batch = bn.MicroBatches(eps=1e-3)
    batch.add(x[:2])
    assert np.allclose(batch.normalize(x[:2]), bn.forward_training(x[:2], eps=1e-3)[0], rtol=1e-12, atol=1e-12)
    batch.add(x[2:])
    assert np.allclose(batch.normalize(x), bn.forward_training(x, eps=1e-3)[0], rtol=1e-12, atol=1e-12)
    assert batch.moments is not None
    assert batch.moments.count.tolist() == [42] * 5


def test_update_running_as_the_layer_has_it(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 5, 7))
    batch = bn.MicroBatches()
    batch.add(x)
    for options in ({}, {"momentum": 0.5}, {"decay": 0.75, "unbiased": False}):
        running, expected = (np.zeros(5), np.ones(5)), (np.zeros(5), np.ones(5))
        bn.forward_training(x, running_mean=expected[0], running_var=expected[1], **options)  # type: ignore[arg-type]
        batch.update_running(*running, **options)  # type: ignore[arg-type]
        assert np.allclose(running, expected, rtol=1e-14, atol=0)


def test_what_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    with pytest.raises(ValueError, match="eps"):
        bn.MicroBatches(eps=-1)
    batch = bn.MicroBatches()
    assert batch.dgamma is batch.dbeta is batch.moments is None
    for call in (
        lambda: batch.normalize(x),
        lambda: batch.add_gradient(x, x),
        lambda: batch.update_running(np.zeros(3), np.ones(3)),
        lambda: batch.mean,
        lambda: batch.invstd,
    ):
        with pytest.raises(RuntimeError, match=r"nothing to normalize with before add\(\)"):
            call()
    batch.add(x)
    with pytest.raises(RuntimeError, match=r"apply_gradient\(\) was called before add_gradient\(\)"):
        batch.apply_gradient(x, x)
    with pytest.raises(ValueError, match="shape"):
        batch.add(x[:, :2])
    with pytest.raises(ValueError, match=r"weights have shape \(3,\), expected \(4,\)"):
        batch.add(x, [1, 2, 3])
    assert batch.moments is not None
    assert batch.moments.count.tolist() == [4] * 3
