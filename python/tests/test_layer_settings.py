# SPDX-License-Identifier: Apache-2.0
"""Layers that are told more than the plain ones: they give what the functions give, and keep count."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(8, 3, 5, 2)).astype(np.float32)


@pytest.fixture
def dy(rng: np.random.Generator) -> Array:
    return rng.normal(size=(8, 3, 5, 2)).astype(np.float32)


INDEX = [2, 0, 0, 2, 0, 2, 2, 0]
SETTINGS: dict[str, dict[str, Any]] = {
    "activation": {"activation": "relu"},
    "average": {"running": bn.Running("debiased")},
    "cumulative": {"momentum": None, "activation": "silu"},
    "source": {"source": bn.Renorm(2, 1, 0.5)},
    "ghost": {"groups": bn.Ghost(2)},
    "segments": {"groups": bn.Segments(INDEX, 3)},
    "split": {"groups": bn.Split(2)},
    "split, shared": {"groups": bn.Split(2, True)},
    "conditional": {"groups": bn.Conditional(INDEX, 3)},
    "all": {"activation": "relu", "running": bn.Running("filled"), "source": bn.Blend(4), "groups": bn.Split(4)},
}
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {"residual": np.arange(240, dtype="f4").reshape(8, 3, 5, 2) % 7},
    "weights": {"weights": np.arange(80).reshape(8, 5, 2) % 3, "masked": "zero"},
}


def drawn(layer: bn.BatchNorm, rng: np.random.Generator) -> bn.BatchNorm:
    for array in (layer.gamma, layer.beta, layer.running_mean):
        array[...] = rng.normal(size=array.shape)
    layer.running_var[...] = rng.uniform(1, 2, layer.running_var.shape)
    return layer


@pytest.mark.parametrize("called", CALLS)
@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_functional_call(rng: np.random.Generator, x: Array, dy: Array, name: str, called: str) -> None:
    told = dict(SETTINGS[name])
    layer = drawn(bn.BatchNorm(3, **told), rng)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    count = np.array(layer.num_batches_tracked)
    average = "cumulative" if told.pop("momentum", 0.1) is None else told.pop("running", bn.Running()).average
    for _ in range(3):
        policy = bn.Running(average, num_batches=count)
        arguments = {"gamma": layer.gamma, "beta": layer.beta, "running_mean": mean, "running_var": var}
        expected, saved = bn.forward_training(x, **arguments, **told, **CALLS[called], running=policy)
        assert np.array_equal(layer(x, **CALLS[called]), expected)
        assert np.array_equal(layer.running_mean, mean)
        assert np.array_equal(layer.running_var, var)
        assert np.array_equal(layer.num_batches_tracked, count)
        dx, dgamma, dbeta, *dz = bn.backward(dy, x, saved, gamma=layer.gamma)
        assert np.array_equal(layer.backward(dy), dx)
        assert np.array_equal(layer.grad_gamma, dgamma)
        assert np.array_equal(layer.grad_beta, dbeta)
        assert np.array_equal(layer.grad_residual, dz[0]) if dz else layer.grad_residual is None


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("called", CALLS)
@pytest.mark.parametrize("name", SETTINGS)
def test_evaluation_is_the_functional_call(
    rng: np.random.Generator, x: Array, dy: Array, name: str, called: str, frozen: bool
) -> None:
    """The call of the layer is that of the function; so is training of a frozen layer."""
    layer = drawn(bn.BatchNorm(3, **SETTINGS[name]), rng)
    if frozen:
        layer.frozen = True
    else:
        layer.eval()
    before = layer.state_dict()
    told = {key: SETTINGS[name][key] for key in ("activation", "groups") if key in SETTINGS[name]}
    running = {"running_mean": layer.running_mean, "running_var": layer.running_var}
    expected = bn.forward_inference(x, layer.gamma, layer.beta, **running, **told, **CALLS[called])
    assert np.array_equal(layer(x, **CALLS[called]), expected)
    saved = bn.frozen_statistics(**running, beta=layer.beta, **told, **CALLS[called])
    dx, dgamma, dbeta, *dz = bn.backward(dy, x, saved, gamma=layer.gamma)
    assert np.array_equal(layer.backward(dy), dx)
    assert np.array_equal(layer.grad_gamma, dgamma)
    assert np.array_equal(layer.grad_beta, dbeta)
    assert np.array_equal(layer.grad_residual, dz[0]) if dz else layer.grad_residual is None
    for key, value in layer.state_dict().items():
        assert np.array_equal(value, before[key])


@pytest.mark.parametrize("name", SETTINGS)
def test_state_and_copies(rng: np.random.Generator, x: Array, name: str) -> None:
    layer = drawn(bn.BatchNorm(3, **SETTINGS[name]), rng)
    layer(x)
    other = bn.BatchNorm(3, **SETTINGS[name])
    other.load_state_dict(layer.state_dict())
    for again in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(again) == repr(layer)
        for key, value in layer.state_dict().items():
            assert np.array_equal(again.state_dict()[key], value)
        assert np.array_equal(copy.deepcopy(again)(x), copy.deepcopy(layer)(x))
    layer.reset_parameters()
    assert not np.any(layer.num_batches_tracked)
    assert not layer.running_mean.any()
    wrong = {**layer.state_dict(), "num_batches_tracked": np.zeros((5, 5), np.int64)}
    with pytest.raises(ValueError, match="num_batches_tracked has shape"):
        other.load_state_dict(wrong)


def test_rows_of_groups(x: Array) -> None:
    for groups, parameters, running in (
        (bn.Ghost(2), (3,), (3,)),
        (bn.Segments([], 4), (4, 3), (4, 3)),
        (bn.Split(2), (2, 3), (2, 3)),
        (bn.Split(2, True), (3,), (2, 3)),
        (bn.Conditional([], 4), (4, 3), (3,)),
    ):
        layer = bn.BatchNorm2d(3, groups=groups)
        assert layer.gamma.shape == layer.beta.shape == parameters
        assert layer.running_mean.shape == layer.running_var.shape == running
        assert np.shape(layer.num_batches_tracked) == running[:-1]


def test_each_group_counts_its_batches(x: Array) -> None:
    layer = bn.BatchNorm2d(3, groups=bn.Segments([], 3), momentum=None)
    with pytest.raises(ValueError, match=r"index has shape \(0,\), expected \(8,\)"):
        layer(x)
    layer.groups = bn.Segments(INDEX, 3)
    layer(x)
    layer.groups = bn.Segments([1] * 8, 3)
    layer(x)
    layer(x)
    assert layer.num_batches_tracked.tolist() == [1, 2, 1]
    assert layer.state_dict()["num_batches_tracked"].tolist() == [1, 2, 1]
    assert np.allclose(layer.running_mean[1], x.astype(float).mean(axis=(0, 2, 3)), atol=1e-6)


def test_ghost_batches_count_one_by_one(x: Array) -> None:
    for averaged, expected in ((False, 4), (True, 1)):
        layer = bn.BatchNorm2d(3, groups=bn.Ghost(2, averaged=averaged))
        layer(x)
        assert layer.num_batches_tracked == expected


def test_settings_may_be_assigned_at_any_time(x: Array) -> None:
    layer = bn.BatchNorm2d(3)
    plain = layer(x)
    layer.activation = "relu"
    assert np.array_equal(layer(x), np.where(plain > 0, plain, 0))
    layer.activation = None
    assert np.array_equal(layer(x), plain)
    for step in (0, 15_000, 40_000):
        r_max, d_max = bn.renorm_limits(step)
        layer.source = bn.Renorm(r_max, d_max, 1 / r_max)
        mean, var = layer.running_mean.copy(), layer.running_var.copy()
        expected, _ = bn.forward_training(
            x, layer.gamma, layer.beta, running_mean=mean, running_var=var, source=layer.source
        )
        assert np.array_equal(layer(x), expected)
    layer.source = None
    layer.frozen = True
    layer.frozen = False
    assert np.array_equal(layer(x), plain)
    assert layer.num_batches_tracked == 7


def test_a_frozen_layer(rng: np.random.Generator, x: Array, dy: Array) -> None:
    """Training is evaluation; gamma and beta have gradients as with constants."""
    layer = drawn(bn.BatchNorm2d(3, frozen=True), rng)
    assert layer.training
    before = layer.state_dict()
    expected = bn.forward_inference(
        x, layer.gamma, layer.beta, running_mean=layer.running_mean, running_var=layer.running_var
    )
    assert np.array_equal(layer(x), expected)
    saved = bn.frozen_statistics(layer.running_mean, layer.running_var)
    results = layer.backward(dy), layer.grad_gamma, layer.grad_beta
    for given, exact in zip(results, bn.backward(dy, x, saved, gamma=layer.gamma)):
        assert np.array_equal(given, exact)
    for key, value in layer.state_dict().items():
        assert np.array_equal(value, before[key])
    assert "frozen=True" in repr(layer)


def test_batches_that_do_not_count(rng: np.random.Generator) -> None:
    one = rng.normal(size=(1, 3)).astype("f4")
    layer = bn.BatchNorm1d(3, running=bn.Running(single_value="running", nonfinite="skip"))
    assert np.allclose(layer(one), one / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert np.allclose(layer.backward(one), one / np.sqrt(1 + 1e-5), rtol=1e-6)
    layer(np.full((4, 3), np.nan, "f4"))
    layer(np.zeros((0, 3), "f4"))
    layer(np.ones((4, 3), "f4"), weights=np.zeros(4))
    assert layer.num_batches_tracked == 0
    assert layer.running_mean.tolist() == [0] * 3
    layer(np.ones((4, 3), "f4"))
    assert layer.num_batches_tracked == 1


def test_in_place_where_y_tells_x_hat(rng: np.random.Generator, x: Array, dy: Array) -> None:
    for activation in ("identity", bn.LeakyReLU(0.1)):
        for training in (True, False):
            layer = drawn(bn.BatchNorm2d(3, activation=activation), rng).train(training)
            layer.gamma[...] = [-2, 1, 3]
            other = copy.deepcopy(layer)
            expected = other(x)
            dx = other.backward(dy)
            y = x.copy()
            assert layer(y, out=y) is y
            assert np.array_equal(y, expected)
            assert np.allclose(layer.backward(dy), dx, rtol=1e-4, atol=1e-5)
            assert np.allclose(layer.grad_gamma, other.grad_gamma, rtol=1e-4, atol=1e-4)
            assert np.allclose(layer.grad_beta, other.grad_beta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "more"),
    [("relu", {}), ("silu", {}), (bn.LeakyReLU(0), {}), ("identity", {"residual": np.zeros((8, 3, 5, 2), "f4")})],
)
def test_in_place_where_it_does_not(x: Array, dy: Array, activation: Any, more: Any) -> None:
    layer = bn.BatchNorm2d(3, activation=activation)
    layer(x.copy(), **more)
    layer.backward(dy)
    layer(x, out=x, **more)
    with pytest.raises(RuntimeError, match="overwritten by out=x"):
        layer.backward(dy)


def test_outputs_beside_x(x: Array, dy: Array) -> None:
    layer = bn.BatchNorm2d(3, activation="relu")
    y, dx = np.empty_like(x), np.empty_like(x)
    assert layer(x, out=y) is y
    assert layer.backward(dy, out=dx) is dx
    _, saved = bn.forward_training(x, layer.gamma, activation="relu")
    assert np.array_equal(dx, bn.backward(dy, x, saved, gamma=layer.gamma)[0])


def test_lengths(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 6)).astype("f4")
    layer = bn.BatchNorm1d(3)
    expected, _ = bn.forward_training(x, weights=np.arange(6) < np.array([[6], [2], [0], [4]]), masked="zero")
    assert np.array_equal(layer(x, lengths=[6, 2, 0, 4], masked="zero"), expected)


def test_without_parameters_and_running_statistics(rng: np.random.Generator, x: Array, dy: Array) -> None:
    layer = bn.BatchNorm2d(3, affine=False, track_running_stats=False, activation="relu")
    expected, saved = bn.forward_training(x, activation="relu")
    for mode in (True, False):
        assert np.array_equal(layer.train(mode)(x), expected)
        assert np.array_equal(layer.backward(dy), bn.backward(dy, x, saved)[0])
        assert layer.grad_gamma is layer.grad_beta is None
    layer = drawn(bn.BatchNorm2d(3, source=bn.Updated()), rng)
    layer.track_running_stats = False
    before = layer.running_mean.copy()
    expected = copy.deepcopy(layer)
    expected.track_running_stats = True
    assert np.array_equal(layer(x), expected(x))
    assert np.array_equal(layer.running_mean, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("name", SETTINGS)
def test_other_dtypes(rng: np.random.Generator, x: Array, dy: Array, name: str, dtype: Any) -> None:
    layer = drawn(bn.BatchNorm(3, dtype=dtype, **SETTINGS[name]), rng)
    y = layer(x.astype(dtype), residual=x.astype(dtype))
    dx = layer.backward(dy.astype(dtype))
    assert y.dtype == dx.dtype == layer.grad_residual.dtype == dtype
    assert layer.grad_gamma.dtype == layer.param_dtype == (np.float32 if dtype == np.float16 else dtype)
    param = drawn(bn.BatchNorm(3, dtype=dtype, param_dtype=dtype, **SETTINGS[name]), rng)
    param(x.astype(dtype))
    param.backward(dy.astype(dtype))
    assert param.grad_gamma.dtype == dtype


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        ({"activation": "gelu"}, ValueError, "activation is 'gelu'"),
        ({"running": "cumulative"}, TypeError, "running is of type str, expected Running"),
        ({"source": 1}, TypeError, "source is of type int, expected Blend or Renorm or Updated"),
        ({"groups": 2}, TypeError, "groups is of type int, expected Ghost or Segments or Split or Conditional"),
        ({"running": bn.Running(pure=True)}, ValueError, "running is pure, or has num_batches, but a layer keeps"),
        ({"running": bn.Running(num_batches=np.zeros(1, "i8"))}, ValueError, "running is pure, or has num_batches"),
        ({"running": bn.Running("filled"), "momentum": None}, ValueError, "running has average 'filled', but momentum"),
    ],
)
def test_what_is_refused(x: Array, told: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.BatchNorm2d(3, **told)
    layer = bn.BatchNorm2d(3)
    for name, value in told.items():
        setattr(layer, name, value)
    with pytest.raises(error, match=message):
        layer(x)
    assert layer.num_batches_tracked == 0


def test_an_error_leaves_everything_as_it_was(x: Array, dy: Array) -> None:
    layer = bn.BatchNorm2d(3, activation="relu")
    layer(x)
    dx, before = layer.backward(dy), layer.state_dict()
    for wrong, more, error, message in [
        (x.astype(float), {}, TypeError, "x has dtype float64, expected float32, the dtype of the layer"),
        (x[:, :2], {}, ValueError, "x has 2 channels at axis 1, expected 3, as the layer has"),
        (x[:1, :, :1, :1], {}, ValueError, "value"),
        (x, {"residual": x[:2]}, ValueError, "residual has shape"),
        (x, {"weights": -np.ones((8, 5, 2))}, ValueError, "weights have a value -1"),
        (x, {"lengths": [5] * 7}, ValueError, "lengths have shape"),
        (x[0], {}, ValueError, "expected 4D input"),
    ]:
        with pytest.raises(error, match=message):
            layer(wrong, **more)
        for key, value in layer.state_dict().items():
            assert np.array_equal(value, before[key])
    assert np.array_equal(layer.backward(dy), dx)
    layer.running_var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var is read-only"):
        layer(x)


def test_repr() -> None:
    layer = bn.BatchNorm2d(3, activation=bn.LeakyReLU(0.1), groups=bn.Ghost(4), source=bn.Blend(16))
    assert repr(layer).endswith(
        "activation=LeakyReLU(slope=0.1), source=Blend(pseudo_count=16), "
        "groups=Ghost(size=4, interleaved=False, averaged=False))"
    )


def test_frozen_needs_something_to_be_frozen_to() -> None:
    with pytest.raises(ValueError, match="frozen is True, but the layer has no running statistics"):
        bn.BatchNorm1d(3, frozen=True, track_running_stats=False)
    with pytest.raises(TypeError, match="frozen is 'yes', expected True or False"):
        bn.BatchNorm1d(3, frozen="yes")  # type: ignore[arg-type]
    layer = bn.BatchNorm1d(3)
    layer.frozen = 1
    with pytest.raises(TypeError, match="frozen is 1"):
        layer(np.ones((4, 3), np.float32))


def test_outcome() -> None:
    layer = bn.BatchNorm1d(2, running=bn.Running(nonfinite="skip"))
    assert layer.outcome is None
    layer(np.float32([[1, 2], [3, 4]]))
    assert layer.outcome == bn.Outcome.USED
    layer(np.float32([[1, 2], [np.nan, 4]]))
    assert layer.outcome == bn.Outcome.NONFINITE


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_masked_is_looked_at_without_a_mask(mode: str) -> None:
    layer = getattr(bn.BatchNorm1d(3), mode)()
    with pytest.raises(ValueError, match="masked is 'bogus', expected"):
        layer(np.ones((4, 3), np.float32), masked="bogus")
