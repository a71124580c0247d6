# SPDX-License-Identifier: Apache-2.0
"""Batch norm as a scale and a shift, and two of them as one layer."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from convolving import Norm, close, per_channel
from oracle import Real

import batchnorm as bn

Array = np.ndarray[Any, Any]
CASES = range(40)
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("case", CASES)
def test_scale_and_shift_are_those_of_inference(rng: np.random.Generator, case: int) -> None:
    dtype = rng.choice(["float32", "float64"])
    norm = Norm(rng, 7, dtype)
    layer = norm.layer
    x = rng.normal(size=(5, 7, 3)).astype(dtype)
    given = layer.gamma, layer.beta, layer.running_mean, layer.running_var
    before = [None if each is None else each.copy() for each in given]
    for form in (bn.ScaleShift.of(layer), bn.scale_shift(*given, layer.eps)):
        assert form.scale.dtype == form.shift.dtype == np.float64
        assert form.scale.shape == form.shift.shape == (7,)
        y = per_channel(form.scale, x) * x + per_channel(form.shift, x)
        close(y, norm(x.astype(Real)))
        assert abs(y - layer.eval()(x)).max() < 20 * np.finfo(dtype).eps * (1 + abs(y).max())
    for old, new in zip(before, given):
        assert new is None or np.array_equal(old, new)


def test_a_layer_in_training_is_taken_for_what_it_does_in_evaluation(rng: np.random.Generator) -> None:
    layer = Norm(rng, 4).layer
    expected = bn.ScaleShift.of(layer.eval())
    assert np.array_equal(bn.ScaleShift.of(layer.train()), expected)
    assert layer.training


def test_all_sorts_of_numbers_and_shapes() -> None:
    half = np.array([1.5, 2.5])
    expected = bn.scale_shift(half, half, half, half, 0.25)
    for dtype in DTYPES:
        given = [half.astype(dtype)] * 4
        assert np.array_equal(bn.scale_shift(*given, eps=0.25), expected)
    assert np.array_equal(bn.scale_shift(*[[1.5, 2.5]] * 4, eps=0.25), expected)
    square = bn.scale_shift(None, [[1, 2], [3, 4]], np.zeros((2, 2)), np.full((2, 2), 4), 0)
    assert np.array_equal(square.scale, np.full((2, 2), 0.5))
    assert np.array_equal(square.shift, [[1, 2], [3, 4]])
    layer = bn.BatchNorm((2, 3), axis=(1, 2))
    assert bn.ScaleShift.of(layer).scale.shape == (2, 3)
    layer = bn.BatchNorm(2, groups=bn.Ghost(4), source=bn.Renorm(), frozen=True, activation="identity")
    assert np.array_equal(bn.ScaleShift.of(layer), bn.scale_shift(None, None, np.zeros(2), np.ones(2)))


def test_without_variance_y_is_beta() -> None:
    assert bn.scale_shift([-2], [5], [7], [0], 0) == ([0], [5])
    assert bn.scale_shift([3], [6], [8], [-0.25], 0.25) == ([0], [6])


@pytest.mark.parametrize("case", CASES)
def test_merged_norms(rng: np.random.Generator, case: int) -> None:
    dtype = rng.choice(["float32", "float64"])
    first, second = Norm(rng, 6, dtype), Norm(rng, 6, dtype)
    first.layer.running_mean += 1000  # as much as there is to lose where x is not centred first
    states = first.layer.state_dict(), second.layer.state_dict()
    x = (1000 + rng.normal(size=(8, 6, 5))).astype(dtype)
    first.layer(x)
    first.layer.backward(x)
    first.layer.load_state_dict(states[0])
    merged = bn.merge_batch_norms(first.layer, second.layer)
    expected = second(first(x.astype(Real)))
    # Roundings of y, and of the parameters that make it up: that x is far from 0 costs nothing.
    std = np.sqrt(merged.running_var.astype(Real) + Real(merged.eps))
    x_hat = (x - per_channel(merged.running_mean, x)) / per_channel(np.where(std > 0, std, np.inf), x)
    size = abs(per_channel(merged.gamma, x) * x_hat) + abs(per_channel(merged.beta, x))
    # Parameters are computed in float64, of terms that may cancel.
    later = second.layer
    scale, shift = bn.ScaleShift.of(later)
    terms = abs(scale) * (abs(later.running_mean) + (0 if first.layer.beta is None else abs(first.layer.beta))) + abs(
        shift
    )
    bound = 2 * np.finfo(dtype).eps * size + 4 * np.finfo(float).eps * per_channel(terms, x)
    assert (abs(merged(x) - expected) <= bound).all()
    for layer, state in zip((first.layer, second.layer), states):
        for key, value in layer.state_dict().items():
            assert np.array_equal(value, state[key])
    assert not merged.training
    assert first.layer.training
    assert merged.grad_gamma is None
    assert np.array_equal(merged.running_mean, first.layer.running_mean)
    merged.running_mean[...] = merged.gamma[...] = 0
    assert (first.layer.running_mean != 0).all()


def test_merged_norms_are_what_the_first_is() -> None:
    first = bn.BatchNorm2d(3, eps=1e-3, momentum=None, dtype=np.float16, param_dtype=np.float16, affine=False)
    second = bn.BatchNorm(3, dtype=np.float16, eps=3)
    second.beta[...] = 1
    merged = bn.merge_batch_norms(first, second)
    assert type(merged) is bn.BatchNorm2d
    assert repr(merged) == repr(first).replace("affine=False", "affine=True")
    assert merged.gamma.dtype == merged.beta.dtype == np.float16
    assert merged.gamma.tolist() == [0.5] * 3
    assert merged.beta.tolist() == [1.0] * 3
    mixed = bn.merge_batch_norms(bn.BatchNorm(3, dtype=np.float16), second)
    assert mixed.gamma.dtype == mixed.beta.dtype == np.float32
    assert (mixed(np.ones((2, 3), np.float16)) == 1.5).all()
    wide = bn.merge_batch_norms(bn.BatchNorm((2, 3), axis=(1, 2)), bn.BatchNorm((2, 3), axis=(1, 2), eps=3))
    assert wide.gamma.shape == (2, 3)
    same = bn.merge_batch_norms(bn.BatchNorm(3, axis=-1), bn.BatchNorm((3,), axis=(-1,)))
    assert same.axis == -1
