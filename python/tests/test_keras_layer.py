# SPDX-License-Identifier: Apache-2.0
"""The Keras layer beside Keras's formulas in float64 and their derivatives: what a call gives and what it moves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from keras_formulas import NAMES, POLICIES, Formulas, near, randomize, some_x

from batchnorm.interop.keras import BatchNormalization

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return some_x(rng)


@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("case", range(40))
def test_sequences_of_calls(rng: np.random.Generator, dtype: str, case: int) -> None:
    """Any axis, with a mask and without, training and not, single values and none: y, weights and gradients."""
    compute, variable, of_tensors, of_weights = POLICIES[dtype]
    rank = int(rng.integers(1, 5))
    axis, channels = int(rng.integers(-rank, rank)), int(rng.integers(1, 4))
    told: dict[str, Any] = {
        "axis": axis,
        "momentum": round(float(rng.uniform(0, 1)), 2),
        "epsilon": float(rng.choice([1e-3, 1e-2, 0.5])),
        "renorm_momentum": round(float(rng.uniform(0, 1)), 2),
        "dtype": dtype,
    }
    told.update({name: bool(rng.random() < 0.6) for name in ("center", "scale", "renorm")})
    limits = {"rmin": 0.6, "rmax": 1.3, "dmax": 0.4}
    told["renorm_clipping"] = {key: value for key, value in limits.items() if rng.random() < 0.5} or None
    print(told)
    layer = BatchNormalization(**told)
    layer.build([channels if a == axis % rank else None for a in range(rank)])
    randomize(rng, layer)
    for step in range(6):
        layer.trainable, training = bool(rng.random() < 0.85), bool(rng.random() < 0.75)
        shape = [int(n) for n in rng.choice([0, 1, 2, 5], rank, p=[0.05, 0.25, 0.35, 0.35])]
        shape[axis] = channels
        x, dy = ((values * 2).astype(compute) for values in rng.normal(0.5, size=(2, *shape)))
        mask = None
        if rng.random() < 0.5:
            lengths = [1 if a == axis % rank or rng.random() < 0.2 else n for a, n in enumerate(shape)][:-1]
            mask = rng.random(lengths) < rng.choice([0, 0.5, 0.9])
        print(f"step {step}: x {shape}, training {training}, trainable {layer.trainable}, mask {mask}")
        formulas = Formulas(layer, x, mask, training)
        y, weights = formulas.result()
        ours = layer(x, training=training, mask=mask)
        assert ours.dtype == compute
        near(ours, y, of_tensors, 1)
        for name in NAMES:
            near(getattr(layer, name), weights[name], of_weights, 1)
        # dx is a difference of dy and sums of it, over a standard deviation of sqrt(1e-3) or more.
        size = 100 * float(abs(dy.astype(float)).sum())
        gradients = formulas.gradients(dy)
        near(layer.backward(dy), gradients[0], of_tensors, size)
        near(layer.grad_gamma, gradients[1], of_weights, size)
        near(layer.grad_beta, gradients[2], of_weights, size)
        for gradient in (layer.grad_gamma, layer.grad_beta):
            assert gradient is None or gradient.dtype == variable


def test_the_first_call_builds(x: Array) -> None:
    layer = BatchNormalization(axis=1)
    y = layer(x)
    assert layer.gamma.shape == (5,)
    assert np.array_equal(y, layer.call(x))
    # Any lengths but that of the channels from now on.
    assert layer(x[:1, :, :2], training=True).shape == (1, 5, 2)


def test_training_is_asked_for(x: Array) -> None:
    """A call without `training`, or with None, is inference, as in Keras outside of fit()."""
    layer = BatchNormalization()
    for told in ({}, {"training": None}, {"training": False}):
        assert np.allclose(layer(x, **told), x / np.sqrt(1.001), atol=1e-5)
        assert layer.moving_mean.tolist() == [0, 0, 0]
    layer(x, True)
    assert layer.moving_mean.all()
    before = layer.moving_mean.copy()
    layer.trainable = False
    assert np.array_equal(layer(x, training=True), layer(x))
    assert np.array_equal(layer.moving_mean, before)


@pytest.mark.parametrize("renorm", [False, True], ids=["", "renorm"])
def test_what_a_mask_hides_has_no_say(x: Array, renorm: bool) -> None:
    mask = np.ones((4, 5), bool)
    mask[1, 2:] = mask[3] = False
    hidden = x.copy()
    hidden[~mask] = np.nan
    results = []
    for values in (x, hidden):
        layer = BatchNormalization(renorm=renorm, momentum=0.5)
        y = layer(values, training=True, mask=mask)
        results.append([y[mask], *layer.get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(*results))
    assert np.isfinite(np.concatenate([a.ravel() for a in results[1]])).all()
    # In inference it has no say at all.
    assert np.array_equal(layer(x, mask=mask), layer(x))


@pytest.mark.parametrize("kind", [np.float64, np.int8, bool])
def test_masks_of_other_dtypes(x: Array, kind: Any) -> None:
    """A value of a mask that is not 0 counts, and counts once."""
    mask = np.array([[0, 1, -2, 0, 3]] * 4).astype(kind)
    expected = BatchNormalization()(x, training=True, mask=mask != 0)
    for same in (mask, mask[:1], mask.tolist()):
        assert np.array_equal(BatchNormalization()(x, training=True, mask=same), expected)


@pytest.mark.parametrize("renorm", [False, True], ids=["", "renorm"])
def test_one_value_moves_the_averages(renorm: bool) -> None:
    layer = BatchNormalization(momentum=0.5, renorm=renorm, renorm_clipping={"rmax": 1, "rmin": 1, "dmax": 0})
    layer.build((None, 2))
    layer.beta[...] = [5, 6]
    y = layer(np.array([[3, 4]], np.float32), training=True)
    assert y.tolist() == [[5, 6]]
    assert layer.moving_mean.tolist() == [1.5, 2]
    std = (1 + np.sqrt(1e-3)) / 2
    assert np.allclose(layer.moving_variance, std**2 - 1e-3 if renorm else 0.5, rtol=1e-6)
    assert layer.backward([[1, 1]]).tolist() == [[0, 0]]
    assert layer.grad_beta.tolist() == [1, 1]


@pytest.mark.parametrize("renorm", [False, True], ids=["", "renorm"])
def test_nothing_moves_nothing(x: Array, renorm: bool) -> None:
    """An empty batch, and one that the mask hides."""
    layer = BatchNormalization(renorm=renorm)
    layer(x, training=True)
    before = [a.tolist() for a in layer.weights]
    assert layer(x[:0], training=True).shape == (0, 5, 3)
    assert layer.backward(x[:0]).shape == (0, 5, 3)
    assert layer.grad_gamma.tolist() == layer.grad_beta.tolist() == [0, 0, 0]
    y = layer(x, training=True, mask=np.zeros((4, 5)))
    assert [a.tolist() for a in layer.weights] == before
    assert np.isfinite(y).all()
    assert np.isfinite(layer.backward(x)).all()


@pytest.mark.parametrize("renorm", [False, True], ids=["", "renorm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_channel(x: Array, value: float, renorm: bool) -> None:
    layer, like = (BatchNormalization(renorm=renorm) for _ in range(2))
    expected, gradient = like(x, training=True), like.backward(x)
    x = x.copy()
    x[0, 0, 1] = value
    y = layer(x, training=True)
    dx = layer.backward(np.where(np.isfinite(x), x, 0))
    for c in (0, 2):
        assert np.array_equal(y[..., c], expected[..., c])
        assert np.array_equal(dx[..., c], gradient[..., c])
        assert [a[c] for a in layer.weights] == [a[c] for a in like.weights]
    assert np.isnan(y[0, 0, 1])
    assert not np.isfinite([layer.moving_mean[1], layer.grad_gamma[1]]).any()


def test_epsilon_0_in_a_constant_channel() -> None:
    x = np.full((4, 2), 3.0, np.float32)
    layer = BatchNormalization(epsilon=0, beta_initializer=[7, 8])
    assert layer(x, training=True).tolist() == [[7, 8]] * 4
    layer = BatchNormalization(epsilon=0, renorm=True, gamma_initializer=2)
    # x_hat is 0, d is (3 - 0) / 1.
    assert layer(x, training=True).tolist() == [[6, 6]] * 4
    assert layer.backward(np.ones_like(x)).tolist() == [[0, 0]] * 4
    assert layer.grad_gamma.tolist() == [12, 12]


def test_limits_that_leave_nothing_of_x(x: Array) -> None:
    layer = BatchNormalization(renorm=True, renorm_clipping={"rmax": 0, "dmax": 0.25}, gamma_initializer=2)
    assert np.allclose(abs(layer(x, training=True)), 0.5, rtol=1e-6)
    assert not layer.backward(x).any()


def test_limits_that_are_those_of_the_ordinary_layer(x: Array) -> None:
    layer, ordinary = (
        BatchNormalization(renorm=True, renorm_clipping={"rmin": 1, "rmax": 1, "dmax": 0}),
        BatchNormalization(),
    )
    assert np.allclose(layer(x, training=True), ordinary(x, training=True), atol=1e-6)
    assert np.allclose(layer.backward(x**2), ordinary.backward(x**2), atol=1e-6)
    assert np.allclose(layer.moving_mean, ordinary.moving_mean)


def test_inputs_become_of_the_compute_dtype(x: Array) -> None:
    layer = BatchNormalization()
    expected = layer(x, training=True)
    gradient = layer.backward(x)
    for other in (x.astype(np.float64), x.astype(">f4"), x.astype(np.longdouble), x.tolist()):
        layer = BatchNormalization()
        y = layer(other, training=True)
        assert y.dtype == np.float32
        assert np.array_equal(y, expected)
        assert np.array_equal(layer.backward(other), gradient)
    small = BatchNormalization()(np.array([[1, 2], [3, 4]], np.uint8), training=True)
    assert np.allclose(small, [[-1, -1], [1, 1]], atol=1e-3)
    assert BatchNormalization(dtype="float16")(np.float32([[1e30]])).tolist() == [[np.inf]]


def test_the_memory_order_of_x_is_kept(x: Array) -> None:
    for axis in range(3):
        for order in itertools.permutations(range(3)):
            view = x.transpose(order).copy().transpose(np.argsort(order))
            layer, like = BatchNormalization(axis), BatchNormalization(axis)
            y = layer(view, training=True)
            assert y.strides == view.strides
            twice_as_long = view.astype(np.float64)
            assert layer(twice_as_long).strides == view.strides
            assert np.allclose(y, like(x, training=True), atol=1e-6)


def test_gradients_are_of_the_last_call_and_written_anew(x: Array) -> None:
    layer = BatchNormalization()
    layer(x, training=True)
    layer(x)
    assert np.allclose(layer.backward(x), x / np.sqrt(layer.moving_variance + 1e-3), rtol=1e-5)
    first, kept = layer.grad_beta, layer.grad_beta.copy()
    layer.backward(2 * x)
    assert np.array_equal(layer.grad_beta, 2 * kept)
    assert np.array_equal(first, kept)
