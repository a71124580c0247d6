# SPDX-License-Identifier: Apache-2.0
"""FrozenBatchNorm2d: constants in every mode, dx alone, and how a layer becomes one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, spied

import batchnorm as bn

Array = np.ndarray[Any, Any]


def arrays(rng: np.random.Generator, c: int, dtype: Any = np.float32) -> dict[str, Array]:
    normal = rng.normal(size=(3, c))
    values = *normal, rng.uniform(0.3, 4, c)
    return {k: v.astype(dtype) for k, v in zip(("weight", "bias", "running_mean", "running_var"), values)}


def filled(rng: np.random.Generator, c: int = 3, eps: float = 1e-3, dtype: Any = "f4", **told: Any) -> Any:
    layer = bn.FrozenBatchNorm2d(c, eps, dtype, **told)
    layer.load_state_dict(arrays(rng, c, layer.param_dtype))
    return layer


def formula(layer: Any, x: Array, dy: Array) -> tuple[Array, Array]:
    """y and dx in float64."""
    state = {key: value.astype(float)[:, None, None] for key, value in layer.state_dict().items()}
    factor = state["weight"] / np.sqrt(state["running_var"] + layer.eps)
    return (x.astype(float) - state["running_mean"]) * factor + state["bias"], dy.astype(float) * factor


def test_a_new_layer() -> None:
    layer = bn.FrozenBatchNorm2d(3)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert [value.tolist() for value in layer.state_dict().values()] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]
    assert layer.frozen
    assert layer.eps == 1e-5
    assert repr(layer) == "FrozenBatchNorm2d(3, eps=1e-05)"
    told: dict[str, Any] = {"activation": "relu", "groups": bn.Split(2)}
    text = f"FrozenBatchNorm2d(3, eps=0.1, dtype=float64, activation='relu', groups={bn.Split(2)})"
    assert repr(bn.FrozenBatchNorm2d(3, 0.1, "f8", **told)) == text


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_formula(rng: np.random.Generator, dtype: str, training: bool) -> None:
    for shape in [(2, 3, 4, 5), (1, 3, 1, 1), (0, 3, 2, 2), (5, 1, 7, 3), (3, 17, 2, 2)]:
        layer = filled(rng, shape[1], dtype=dtype).train(training)
        before = copy.deepcopy(layer.state_dict())
        x, dy = rng.normal(1, 2, size=(2, *shape)).astype(dtype)
        y, dx = formula(layer, x, dy)
        ulp = 4 * float(np.finfo(dtype).eps)
        print(shape, dtype)
        np.testing.assert_allclose(layer(x), y, rtol=ulp, atol=ulp * 4)
        np.testing.assert_allclose(layer.backward(dy), dx, rtol=ulp, atol=float(np.finfo(dtype).tiny) * ulp)
        assert layer(x).dtype == layer.backward(dy).dtype == np.dtype(dtype)
        assert layer.grad_gamma is layer.grad_beta is layer.grad_residual is None
        assert layer.num_batches_tracked == 0
        assert all(np.array_equal(before[key], value) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_same_bits_as_a_layer_of_frozen_statistics(rng: np.random.Generator, training: bool) -> None:
    layer = filled(rng).train(training)
    other = bn.BatchNorm2d(3, 1e-3, frozen=True).train(training)
    other.load_state_dict(layer.state_dict())
    x, dy = rng.normal(size=(2, 2, 3, 4, 5)).astype("f4")
    assert np.array_equal(layer(x), other(x))
    assert np.array_equal(layer.backward(dy), other.backward(dy))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(rng: np.random.Generator, layout: str) -> None:
    layer = filled(rng)
    x, dy = rng.normal(size=(2, 4, 3, 2, 5)).astype("f4")
    layer(x)
    expected = layer.backward(dy)
    layer(LAYOUTS[layout](x))
    assert np.array_equal(layer.backward(LAYOUTS[layout](dy)), expected)
    out = np.empty_like(dy)
    assert layer.backward(LAYOUTS[layout](dy), out=out) is out
    assert np.array_equal(out, expected)


def test_in_place(rng: np.random.Generator) -> None:
    layer = filled(rng)
    x, dy = rng.normal(size=(2, 4, 3, 2, 5)).astype("f4")
    y, dx = layer(x), layer.backward(dy)
    assert layer(x, out=x) is x
    assert np.array_equal(x, y)
    assert layer.backward(dy, out=dy) is dy
    assert np.array_equal(dy, dx)


def test_no_x_is_kept_or_read_where_none_is_needed(rng: np.random.Generator) -> None:
    layer = filled(rng)
    x = rng.normal(size=(2, 3, 4, 5)).astype("f4")
    layer(x)
    with spied("bn_backward") as calls:
        layer.backward(x)
    ((_, _, _, x_address, _, _, _, _, _, dgamma, dbeta, _),) = calls
    assert x_address is dgamma is dbeta is None
    assert layer._last is not None
    assert layer._last[0] is None


def test_activation_and_residual(rng: np.random.Generator) -> None:
    x, z, dy = rng.normal(size=(3, 2, 3, 4, 5)).astype("f4")
    layer, plain = filled(rng, activation="relu"), bn.FrozenBatchNorm2d(3, 1e-3)
    plain.load_state_dict(layer.state_dict())
    u = plain(x) + z
    np.testing.assert_allclose(layer(x, residual=z), np.maximum(u, 0), rtol=0, atol=1e-6)
    dx = layer.backward(dy)
    assert abs(u).min() > 1e-5  # no sign is a matter of rounding
    np.testing.assert_allclose(layer.grad_residual, dy * (u > 0), rtol=0, atol=0)
    np.testing.assert_allclose(dx, plain.backward(dy * (u > 0)), rtol=1e-6)
    assert layer.grad_gamma is layer.grad_beta is None
    layer.activation = None
    layer(x)
    assert np.array_equal(layer.backward(dy), plain.backward(dy))
    assert layer.grad_residual is None


def test_masked_positions_are_kept(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 2, 3, 4, 5)).astype("f4")
    layer = filled(rng)
    mask = rng.random((2, 1, 4, 5)) < 0.5
    y, dx = layer(x), layer.backward(dy)
    assert np.array_equal(layer(x, weights=mask, masked="keep"), np.where(mask, y, x))
    assert np.array_equal(layer.backward(dy), np.where(mask, dx, dy))


def test_states_with_and_without_a_count(rng: np.random.Generator) -> None:
    source = bn.BatchNorm2d(3)
    source(rng.normal(size=(4, 3, 2, 2)).astype("f4"))
    layer = bn.FrozenBatchNorm2d(3)
    layer.load_state_dict(source.state_dict())
    assert np.array_equal(layer.running_var, source.running_var)
    assert layer.num_batches_tracked == 0
    assert "num_batches_tracked" not in layer.state_dict()
    before = layer.state_dict()
    for change, error, message in [
        ({"weight": np.ones(4, "f4")}, ValueError, r"weight has shape \(4,\), expected \(3,\)"),
        ({"running_mean": np.ones(3)}, TypeError, "running_mean has dtype float64"),
        ({"more": 1}, KeyError, "more is unexpected"),
    ]:
        with pytest.raises(error, match=message):
            layer.load_state_dict({**bn.BatchNorm2d(3).state_dict(), **change})
        assert all(np.array_equal(before[key], value) for key, value in layer.state_dict().items())
    with pytest.raises(KeyError, match="running_var is missing"):
        layer.load_state_dict({key: value for key, value in before.items() if key != "running_var"})
    layer.load_state_dict({"bias": np.full(3, 9, "f4"), "more": 1}, strict=False)
    assert layer.beta.tolist() == [9] * 3


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"affine": False},
        {"bias": False},
        {"eps": 0.5, "activation": "relu"},
        {"dtype": "f2"},
        {"dtype": "f2", "param_dtype": "f2"},
        {"dtype": "f8"},
    ],
)
def test_conversion(rng: np.random.Generator, told: dict[str, Any]) -> None:
    layer: Any = bn.BatchNorm2d(3, **told)
    x = rng.normal(1, 2, size=(2, 4, 3, 2, 5)).astype(layer.dtype)
    if layer.affine:
        layer.gamma[...] = [2, 3, -4]
    layer(x[0])
    frozen = bn.FrozenBatchNorm2d.convert(layer)
    assert type(frozen) is bn.FrozenBatchNorm2d
    assert frozen.training
    layer.eval()
    assert not bn.FrozenBatchNorm2d.convert(layer).training
    for mode in (True, False):
        assert np.array_equal(frozen.train(mode)(x[1]), layer(x[1]))
        np.testing.assert_array_equal(frozen.backward(x[0]), layer.backward(x[0]))
    kept = frozen.state_dict()
    layer.running_mean[...] = 7
    assert np.array_equal(frozen.running_mean, kept["running_mean"])
    assert bn.FrozenBatchNorm2d.convert(frozen) is frozen


def test_conversion_of_groups(rng: np.random.Generator) -> None:
    layer = bn.BatchNorm2d(3, groups=bn.Split(2))
    x = rng.normal(size=(4, 3, 2, 2)).astype("f4")
    layer(x)
    assert np.array_equal(bn.FrozenBatchNorm2d.convert(layer)(x), layer.eval()(x))


@pytest.mark.parametrize("layer", [bn.BatchNorm1d(3), bn.LazyBatchNorm2d(), None, "BatchNorm2d"])
def test_what_is_no_batchnorm2d_is_not_converted(layer: Any) -> None:
    with pytest.raises(TypeError, match=f"layer is of type {type(layer).__name__}, expected BatchNorm2d"):
        bn.FrozenBatchNorm2d.convert(layer)


def test_what_from_state_gives_is_converted() -> None:
    layer = bn.from_state(bn.BatchNorm2d(3).state_dict(), "pytorch")
    assert type(layer) is bn.BatchNorm
    assert bn.FrozenBatchNorm2d.convert(layer).num_features == 3
    with pytest.raises(ValueError, match="layer has its channels at axis -1, expected 1"):
        bn.FrozenBatchNorm2d.convert(bn.BatchNorm(3, axis=-1))


def test_what_has_no_running_statistics_is_not_converted() -> None:
    with pytest.raises(ValueError, match="layer has no running_mean, which it would be frozen to"):
        bn.FrozenBatchNorm2d.convert(bn.BatchNorm2d(3, track_running_stats=False))


def test_it_stays_frozen(rng: np.random.Generator) -> None:
    layer = filled(rng)
    x = rng.normal(size=(2, 3, 4, 5)).astype("f4")
    y = layer(x)
    with pytest.raises(ValueError, match="frozen is False, but a FrozenBatchNorm2d is always frozen"):
        layer.frozen = False
    layer.frozen = True
    layer.running, layer.source = bn.Running("filled", num_batches=None), bn.Blend(3)
    assert np.array_equal(layer.train()(x), y)
    for name in ("running_mean", "running_var"):
        other = copy.deepcopy(layer)
        setattr(other, name, None)
        with pytest.raises(ValueError, match=f"{name} is None|frozen is True, but the layer has no running"):
            other(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0"),
        ({"eps": -1}, ValueError, "eps"),
        ({"dtype": int}, TypeError, "dtype is int64"),
        ({"momentum": 0.1}, TypeError, "momentum"),
        ({"activation": "rely"}, ValueError, "rely"),
    ],
)
def test_a_layer_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.FrozenBatchNorm2d(**{"num_features": 3, **arguments})


def test_calls_are_refused(rng: np.random.Generator) -> None:
    layer = filled(rng)
    x = rng.normal(size=(2, 3, 4, 5)).astype("f4")
    with pytest.raises(RuntimeError, match="before the layer"):
        layer.backward(x)
    layer(x)
    expected = layer.backward(x)
    for wrong, error, message in [
        (x[0], ValueError, r"expected 4D input \(got 3D input\)"),
        (x[:, :2], ValueError, "x has 2 channels at axis 1, expected 3"),
        (x.astype("f8"), TypeError, "x has dtype float64, expected float32"),
    ]:
        with pytest.raises(error, match=message):
            layer(wrong)
    taken = np.full((2, 3, 4, 5), 7, "f4")
    read_only = taken.copy()
    read_only.flags.writeable = False
    for wrong, out, error, message in [
        (x[:1], taken, ValueError, r"dy has shape \(1, 3, 4, 5\), expected \(2, 3, 4, 5\)"),
        (x.reshape(2, 3, 5, 4), taken, ValueError, r"dy has shape \(2, 3, 5, 4\)"),
        (x.astype("f8"), taken, TypeError, "dy has dtype float64, expected float32"),
        (x.astype(int), taken, TypeError, "dy has dtype int64"),
        (np.ma.masked_array(x), taken, TypeError, "dy is a masked array"),
        (x, taken[:1], ValueError, "out has shape"),
        (x, taken.astype("f8"), TypeError, "out has dtype"),
        (x, read_only, ValueError, "out is read-only"),
    ]:
        with pytest.raises(error, match=message):
            layer.backward(wrong, out=out)
        assert (taken == 7).all()
    assert np.array_equal(layer.backward(x), expected)
    assert np.array_equal(layer.backward(x.copy("F")), expected)
    both = np.zeros(x.size + 1, "f4")
    dy, out = both[:-1].reshape(x.shape), both[1:].reshape(x.shape)
    with pytest.raises(ValueError, match="overlap"):
        layer.backward(dy, out=out)
    assert not both.any()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(rng: np.random.Generator, duplicate: Any) -> None:
    layer = filled(rng)
    x = rng.normal(size=(2, 3, 4, 5)).astype("f4")
    layer(x)
    other = duplicate(layer)
    with pytest.raises(RuntimeError, match="before the layer"):
        other.backward(x)
    assert np.array_equal(other(x), layer(x))
    assert np.array_equal(other.backward(x), layer.backward(x))
    assert other.frozen
