# SPDX-License-Identifier: Apache-2.0
"""The layer: what it computes in training and evaluation, what it keeps, and what an error leaves as it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import pointer, spied

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(4, 3, 5, 2)).astype(np.float32)


@pytest.fixture
def layer(rng: np.random.Generator) -> bn.BatchNorm:
    layer = bn.BatchNorm(3)
    layer.gamma[...], layer.beta[...] = rng.normal(size=(2, 3))
    return layer


def snapshot(layer: bn.BatchNorm) -> dict[str, Any]:
    return {key: value.tolist() for key, value in layer.state_dict().items()}


def test_a_new_layer() -> None:
    layer = bn.BatchNorm(3)
    assert layer.training
    assert layer.num_batches_tracked == 0
    assert layer.grad_gamma is None
    assert layer.grad_beta is None
    for array, value in [(layer.gamma, 1), (layer.beta, 0), (layer.running_mean, 0), (layer.running_var, 1)]:
        assert array.dtype == np.float32
        assert array.tolist() == [value] * 3


def test_training_is_the_functional_call(layer: bn.BatchNorm, x: Array) -> None:
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    for n in (1, 2, 3):
        expected, saved = bn.forward_training(x, layer.gamma, layer.beta, running_mean=mean, running_var=var)
        assert np.array_equal(layer(x), expected)
        assert np.array_equal(layer.running_mean, mean)
        assert np.array_equal(layer.running_var, var)
        assert layer.num_batches_tracked == n
        dx, dgamma, dbeta = bn.backward(x, x, saved, gamma=layer.gamma)
        assert np.array_equal(layer.backward(x), dx)
        assert np.array_equal(layer.grad_gamma, dgamma)
        assert np.array_equal(layer.grad_beta, dbeta)


def test_evaluation_is_the_functional_call(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    assert layer.eval() is layer
    before = snapshot(layer)
    expected = bn.forward_inference(
        x, layer.gamma, layer.beta, running_mean=layer.running_mean, running_var=layer.running_var
    )
    assert np.array_equal(layer(x), expected)
    assert snapshot(layer) == before
    saved = bn.frozen_statistics(layer.running_mean, layer.running_var)
    dx, dgamma, dbeta = bn.backward(x, x, saved, gamma=layer.gamma)
    assert np.array_equal(layer.backward(x), dx)
    assert np.array_equal(layer.grad_gamma, dgamma)
    assert np.array_equal(layer.grad_beta, dbeta)
    assert layer.train() is layer
    assert layer.training
    assert not layer.train(False).training


def test_gradients_are_written_anew(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    layer.backward(x)
    first, kept = layer.grad_beta, layer.grad_beta.copy()
    layer.backward(2 * x)
    assert np.array_equal(layer.grad_beta, 2 * kept)
    assert np.array_equal(first, kept)


def test_cumulative_average(x: Array) -> None:
    layer = bn.BatchNorm(3, momentum=None, dtype=np.float64)
    batches = [x.astype(float) * n for n in (1, 2, 3, 4)]
    means, variances = [], []
    for n, batch in enumerate(batches, 1):
        layer(batch)
        means.append(batch.mean(axis=(0, 2, 3)))
        variances.append(batch.var(axis=(0, 2, 3), ddof=1))
        assert layer.num_batches_tracked == n
        assert np.allclose(layer.running_mean, np.mean(means, axis=0), rtol=1e-14, atol=1e-15)
        assert np.allclose(layer.running_var, np.mean(variances, axis=0), rtol=1e-14)


def test_an_empty_batch_is_not_counted(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    before = snapshot(layer)
    assert layer(x[:0]).shape == (0, 3, 5, 2)
    assert snapshot(layer) == before
    assert layer.backward(x[:0]).shape == (0, 3, 5, 2)
    assert layer.grad_gamma.tolist() == [0, 0, 0]


def test_without_running_statistics(layer: bn.BatchNorm, x: Array) -> None:
    layer = bn.BatchNorm(3, track_running_stats=False)
    assert layer.running_mean is None
    assert layer.running_var is None
    expected, saved = bn.forward_training(x)
    for mode in (True, False):
        assert np.array_equal(layer.train(mode)(x), expected)
        assert np.array_equal(layer.backward(x), bn.backward(x, x, saved)[0])
    assert layer.num_batches_tracked == 0


def test_tracking_may_be_switched_off(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    before = snapshot(layer)
    layer.track_running_stats = False
    layer(x + 5)
    layer.track_running_stats = True
    assert snapshot(layer) == before


def test_without_gamma_and_beta(x: Array) -> None:
    layer = bn.BatchNorm(3, affine=False)
    assert layer.gamma is None
    assert layer.beta is None
    y, saved = bn.forward_training(x)
    assert np.array_equal(layer(x), y)
    assert np.array_equal(layer.backward(x), bn.backward(x, x, saved)[0])
    assert layer.grad_gamma is None
    assert layer.grad_beta is None


def test_only_one_of_gamma_and_beta(layer: bn.BatchNorm, x: Array) -> None:
    layer.gamma = None
    assert np.array_equal(layer(x), bn.forward_training(x, None, layer.beta)[0])
    layer.backward(x)
    assert layer.grad_gamma is None
    assert layer.grad_beta.shape == (3,)


def test_decay_and_unbiased(x: Array) -> None:
    layer = bn.BatchNorm(3, decay=0.75, unbiased=False, eps=1e-3)
    mean, var = np.zeros(3, "f4"), np.ones(3, "f4")
    expected, _ = bn.forward_training(
        x, None, None, running_mean=mean, running_var=var, momentum=0.25, unbiased=False, eps=1e-3
    )
    assert np.allclose(layer(x), expected, rtol=0, atol=1e-6)
    assert np.array_equal(layer.running_mean, mean)
    assert np.array_equal(layer.running_var, var)


def test_options_may_be_changed_between_calls(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    layer.momentum, layer.eps = 1.0, 0.5
    assert np.array_equal(layer(x), bn.forward_training(x, layer.gamma, layer.beta, eps=0.5)[0])
    assert np.allclose(layer.running_mean, x.astype(float).mean(axis=(0, 2, 3)), atol=1e-7)


def test_an_error_leaves_everything_as_it_was(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    dx, before = layer.backward(x), snapshot(layer)
    gradients = layer.grad_gamma, layer.grad_beta
    for wrong, error, message in [
        (x.astype(float), TypeError, "x has dtype float64, expected float32, the dtype of the layer"),
        (x[:, :2], ValueError, "x has 2 channels at axis 1, expected 3, as the layer has"),
        (x[:1, :, :1, :1], ValueError, "value"),
        (x.astype(complex), TypeError, "complex128"),
        (x[0, 0, 0], ValueError, "axis 1 is out of range"),
    ]:
        with pytest.raises(error, match=message):
            layer(wrong)
        with pytest.raises((ValueError, TypeError), match="dy has"):
            layer.backward(x.astype(float)[1:])
        assert snapshot(layer) == before
        assert layer.grad_gamma is gradients[0]
        assert layer.grad_beta is gradients[1]
    assert np.array_equal(layer.backward(x), dx)


def test_backward_needs_a_forward_call_that_left_x_alone(layer: bn.BatchNorm, x: Array) -> None:
    with pytest.raises(RuntimeError, match="before the layer"):
        layer.backward(x)
    layer(x, out=x)
    with pytest.raises(RuntimeError, match="overwritten by out=x"):
        layer.backward(x)


def test_outputs_in_place(layer: bn.BatchNorm, x: Array) -> None:
    y, dx = np.empty_like(x), np.empty_like(x)
    assert layer(x, out=y) is y
    assert layer.backward(x, out=dx) is dx
    assert np.array_equal(dx, bn.backward(x, x, bn.forward_training(x, layer.gamma)[1])[0])


def test_parameters_may_be_replaced(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    layer.gamma = np.array([2, 3, 4], np.float32)
    layer.running_mean = np.zeros(3, np.float32)
    assert np.array_equal(layer(x), bn.forward_training(x, layer.gamma, layer.beta)[0])
    assert layer.running_mean.any()
    layer.gamma = np.zeros(4, np.float32)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"gamma has shape \(4,\), expected \(3,\)"):
            layer(x)
    layer.gamma = [1.0, 2.0, 3.0]
    layer(x)
    assert layer.gamma.dtype == np.float32
    layer.running_var = [1.0, 1.0, 1.0]
    layer.running_mean = np.zeros(3)
    layer(x)
    assert layer.running_mean.dtype == layer.running_var.dtype == np.float32
    assert layer.running_mean.any()


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_become_read_only_are_not_updated(layer: bn.BatchNorm, x: Array, name: str) -> None:
    layer(x)
    getattr(layer, name).flags.writeable = False
    before = snapshot(layer)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{name} is read-only, but it is updated in place"):
            layer(x)
        assert snapshot(layer) == before
    layer.track_running_stats = False
    layer(x)
    layer.track_running_stats = True
    getattr(layer, name).flags.writeable = True
    layer(x)
    assert layer.num_batches_tracked == 2


def test_evaluation_reads_read_only_running_statistics(layer: bn.BatchNorm, x: Array) -> None:
    expected = copy.deepcopy(layer).eval()(x)
    layer.running_mean.flags.writeable = layer.running_var.flags.writeable = False
    assert np.array_equal(layer.eval()(x), expected)
    with pytest.raises(ValueError, match="running_mean is read-only"):
        layer.train()(x)


def test_what_is_updated_goes_by_pointer_and_the_rest_as_it_is(layer: bn.BatchNorm, x: Array) -> None:
    with spied("bn_forward_training") as calls:
        layer(x)
        layer.gamma *= 2  # in place, through the property
        layer(x)
    arrays = layer.running_mean, layer.running_var
    assert [call[5:7] for call in calls] == [tuple(map(pointer, arrays))] * 2
    assert np.frombuffer(calls[1][3], layer.dtype).tolist() == layer.gamma.tolist()
    assert calls[0][4] == calls[1][4] == layer.beta.tobytes()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(layer: bn.BatchNorm, x: Array, duplicate: Any) -> None:
    layer(x)
    other = duplicate(layer)
    assert snapshot(other) == snapshot(layer)
    assert repr(other) == repr(layer)
    assert np.array_equal(other.eval()(x), copy.copy(layer).eval()(x))
    with pytest.raises(RuntimeError, match="before the layer"):
        duplicate(layer).backward(x)
    if duplicate is not copy.copy:
        before = snapshot(layer)
        other.train()(x + 1)
        other.gamma[...] = 5
        assert snapshot(layer) == before


def test_resets_are_in_place(layer: bn.BatchNorm, x: Array) -> None:
    layer(x)
    arrays = layer.gamma, layer.beta, layer.running_mean, layer.running_var
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0
    assert [array.tolist() for array in arrays[2:]] == [[0] * 3, [1] * 3]
    assert arrays[0].tolist() != [1] * 3
    layer(x)
    layer.reset_parameters()
    assert layer.num_batches_tracked == 0
    assert [array.tolist() for array in arrays] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]


@pytest.mark.parametrize("settings", [{"affine": False}, {"track_running_stats": False}], ids=str)
def test_resets_of_layers_that_lack_arrays(x: Array, settings: dict[str, bool]) -> None:
    layer = bn.BatchNorm(3, **settings)
    layer(x)
    if layer.gamma is not None:
        layer.gamma[...] = 5
    layer.reset_parameters()
    new = bn.BatchNorm(3, **settings).state_dict()
    assert {key: value.tolist() for key, value in layer.state_dict().items()} == {
        key: value.tolist() for key, value in new.items()
    }
    for name in ("gamma", "beta", "running_mean", "running_var"):
        assert (getattr(layer, name) is None) == (getattr(bn.BatchNorm(3, **settings), name) is None)


def test_assigned_numbers_are_an_array_at_once() -> None:
    layer = bn.BatchNorm(3)
    layer.gamma = [1, 2, 3]
    assert layer.gamma.dtype == np.float32
    assert np.array_equal(layer.state_dict()["weight"], [1, 2, 3])
    layer.reset_parameters()
    assert np.array_equal(layer.gamma, [1, 1, 1])
    with pytest.raises(TypeError, match="gamma has dtype"):
        layer.gamma = ["1", "2", "3"]
    assert np.array_equal(layer.gamma, [1, 1, 1])
