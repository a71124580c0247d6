# SPDX-License-Identifier: Apache-2.0
"""Lazy layers: what they are before the first call, what the call makes of them, and what a failed one does not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

Array = np.ndarray[Any, Any]

KINDS = [
    (bn.LazyBatchNorm1d, bn.BatchNorm1d, (4, 3)),
    (bn.LazyBatchNorm1d, bn.BatchNorm1d, (4, 3, 5)),
    (bn.LazyBatchNorm2d, bn.BatchNorm2d, (4, 3, 5, 2)),
    (bn.LazyBatchNorm3d, bn.BatchNorm3d, (4, 3, 2, 2, 2)),
]
NAMES = ["gamma", "beta", "running_mean", "running_var", "weight", "bias"]
DUPLICATES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]


def same_state(first: Any, second: Any) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(np.array_equal(states[0][k], states[1][k]) for k in states[0])


def assert_lazy(layer: Any, kind: type) -> None:
    assert type(layer) is kind
    assert layer.num_features == 0
    assert layer.num_batches_tracked == 0
    with pytest.raises(RuntimeError, match="gamma has no values yet"):
        _ = layer.gamma
    with pytest.raises(RuntimeError, match="before the layer"):
        layer.backward(np.zeros((4, 3), "f4"))


@pytest.mark.parametrize(("lazy", "kind", "shape"), KINDS)
def test_the_first_call_makes_an_ordinary_layer(
    rng: np.random.Generator, lazy: Any, kind: Any, shape: tuple[int, ...]
) -> None:
    for _ in range(8):
        told: dict[str, Any] = {
            "eps": float(rng.choice([1e-5, 1e-2])),
            "momentum": [None, 0.3][rng.integers(2)],
            "affine": bool(rng.random() < 0.6),
            "track_running_stats": bool(rng.random() < 0.6),
            "bias": bool(rng.random() < 0.5),
            "dtype": [np.float32, np.float64][rng.integers(2)],
            "activation": [None, "relu"][rng.integers(2)],
            "unbiased": bool(rng.random() < 0.5),
        }
        training = bool(rng.random() < 0.7)
        print(told, training)
        layer, expected = lazy(**told).train(training), kind(3, **told).train(training)
        for step in range(2):
            x, dy = rng.normal(2, 3, size=(2, *shape)).astype(told["dtype"])
            assert np.array_equal(layer(x), expected(x)), step
            assert type(layer) is kind
            assert np.array_equal(layer.backward(dy), expected.backward(dy))
            assert same_state(layer, expected)
            for name in ("grad_gamma", "grad_beta"):
                mine, other = getattr(layer, name), getattr(expected, name)
                assert (mine is None) == (other is None)
                assert mine is None or np.array_equal(mine, other)
        assert layer.num_batches_tracked == (2 if training and told["track_running_stats"] else 0)
        assert layer.num_features == 3
        assert repr(layer) == repr(expected)
        with pytest.raises(ValueError, match="x has 2 channels at axis 1, expected 3"):
            layer(x[:, :2])


@pytest.mark.parametrize("name", NAMES)
def test_arrays_can_be_neither_read_nor_assigned_before(name: str) -> None:
    layer = bn.LazyBatchNorm2d()
    key = {"weight": "gamma", "bias": "beta"}.get(name, name)
    with pytest.raises(RuntimeError, match=f"{key} has no values yet: the first call tells the number of channels"):
        getattr(layer, name)
    for value in (np.ones(3, "f4"), None, [1.0]):
        with pytest.raises(RuntimeError, match=f"{key} cannot be assigned yet"):
            setattr(layer, name, value)
    assert_lazy(layer, bn.LazyBatchNorm2d)


@pytest.mark.parametrize(
    ("told", "absent"),
    [
        ({"affine": False}, {"gamma", "beta"}),
        ({"track_running_stats": False}, {"running_mean", "running_var"}),
        ({"bias": False}, {"beta"}),
    ],
)
def test_arrays_that_will_not_be_are_none_at_once(told: Any, absent: set[str]) -> None:
    layer = bn.LazyBatchNorm2d(**told)
    for name in NAMES[:4]:
        if name in absent:
            assert getattr(layer, name) is None
        else:
            with pytest.raises(RuntimeError, match=name):
                getattr(layer, name)
    layer(np.ones((2, 3, 1, 1), "f4"))
    assert {name for name in NAMES[:4] if getattr(layer, name) is None} == absent


def test_what_is_set_before_holds_after(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 2, 2)).astype("f4")
    layer = bn.LazyBatchNorm2d().eval()
    layer.momentum, layer.eps, layer.activation = 0.5, 0.25, "relu"
    layer.track_running_stats = False
    expected = bn.BatchNorm2d(3, 0.25, 0.5, track_running_stats=False, activation="relu")
    assert np.array_equal(layer(x), expected(x))
    assert not layer.training
    assert layer.running_mean is None


def test_groups_have_a_row_each() -> None:
    layer = bn.LazyBatchNorm1d(groups=bn.Split(2))
    x = np.arange(24, dtype="f4").reshape(4, 3, 2)
    expected = bn.BatchNorm1d(3, groups=bn.Split(2))
    assert np.array_equal(layer(x), expected(x))
    assert layer.gamma.shape == (2, 3)
    assert layer.num_batches_tracked.tolist() == [1, 1]


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_first_batch_tells_the_number(training: bool) -> None:
    layer = bn.LazyBatchNorm2d().train(training)
    assert layer(np.zeros((0, 3, 2, 2), "f4")).shape == (0, 3, 2, 2)
    assert type(layer) is bn.BatchNorm2d
    assert same_state(layer, bn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("x", "told", "error", "message"),
    [
        (np.ones((4, 3), "f4"), {}, ValueError, r"expected 4D input \(got 2D input\)"),
        (np.float32(1), {}, ValueError, r"expected 4D input \(got 0D input\)"),
        (np.ones((2, 0, 3, 3), "f4"), {}, ValueError, "x has 0 channels, expected at least 1"),
        (np.ones((2, 3, 4, 4)), {}, TypeError, "x has dtype float64, expected float32, the dtype of the layer"),
        (np.ones((2, 3, 4, 4), complex), {}, TypeError, "complex128"),
        (np.ones((1, 3, 1, 1), "f4"), {}, ValueError, "value"),
        (np.ones((2, 3, 4, 4), "f4"), {"out": np.ones((2, 3, 4, 5), "f4")}, ValueError, "out has shape"),
        (np.ones((2, 3, 4, 4), "f4"), {"lengths": [1]}, ValueError, "lengths"),
        (np.ones((2, 3, 4, 4), "f4"), {"what": 1}, TypeError, "what"),
    ],
)
def test_a_first_call_that_fails_leaves_it_lazy(x: Any, told: Any, error: type[Exception], message: str) -> None:
    layer = bn.LazyBatchNorm2d()
    before = layer.__dict__.copy()
    with pytest.raises(error, match=message):
        layer(x, **told)
    assert_lazy(layer, bn.LazyBatchNorm2d)
    assert layer.__dict__ == before
    layer(np.ones((2, 5, 4, 4), "f4"))
    assert layer.num_features == 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": -1}, ValueError, "eps"),
        ({"eps": "1"}, TypeError, "eps"),
        ({"momentum": 2}, ValueError, "momentum"),
        ({"decay": 2}, ValueError, "decay is 2"),
        ({"dtype": int}, TypeError, "dtype is int64"),
        ({"activation": "rely"}, ValueError, "rely"),
        ({"frozen": True, "track_running_stats": False}, ValueError, "frozen is True"),
        ({"num_features": 3}, TypeError, "num_features"),
        ({"device": "cpu"}, TypeError, "device"),
    ],
)
def test_arguments_are_checked_at_once(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.LazyBatchNorm1d(**arguments)


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("called", [False, True])
def test_copies_in_both_states(duplicate: Any, called: bool, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3)).astype("f4")
    layer = bn.LazyBatchNorm1d(momentum=0.5, bias=False)
    if called:
        layer(x)
    other = duplicate(layer)
    assert type(other) is type(layer)
    assert repr(other) == repr(layer)
    if called:
        assert same_state(other, layer)
        return
    assert_lazy(other, bn.LazyBatchNorm1d)
    other(x)
    assert_lazy(layer, bn.LazyBatchNorm1d)
    layer(x)
    assert same_state(other, layer)
    assert layer.gamma is not other.gamma
    assert layer.beta is None


def test_a_state_makes_an_ordinary_layer(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3)).astype("f4")
    for told in ({}, {"affine": False}, {"track_running_stats": False}, {"bias": False}):
        source: Any = bn.BatchNorm1d(3, **told)
        source(x)
        layer = bn.LazyBatchNorm1d(**told)
        layer.load_state_dict(source.state_dict())
        assert type(layer) is bn.BatchNorm1d
        assert layer.num_features == 3
        assert same_state(layer, source)
        assert np.array_equal(layer.eval()(x), source.eval()(x))


def test_a_state_of_groups() -> None:
    source = bn.BatchNorm1d(3, groups=bn.Split(2))
    source(np.arange(24, dtype="f4").reshape(4, 3, 2))
    layer = bn.LazyBatchNorm1d(groups=bn.Split(2))
    layer.load_state_dict(source.state_dict())
    assert layer.num_features == 3
    assert same_state(layer, source)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bias": np.ones(4, "f4")}, ValueError, r"bias has shape \(4,\), expected \(3,\)"),
        ({"weight": np.ones((), "f4")}, ValueError, r"weight has shape \(\)"),
        ({"weight": np.ones(0, "f4")}, ValueError, "weight has 0 channels, expected at least 1"),
        ({"weight": np.ones((2, 3), "f4")}, ValueError, r"weight has shape \(2, 3\), expected \(3,\)"),
        ({"weight": None}, TypeError, "weight is None, expected an array"),
        ({"running_var": np.ones(3)}, TypeError, "running_var has dtype float64, expected float32"),
        ({"num_batches_tracked": -1}, ValueError, "num_batches_tracked is -1"),
        ({"more": 1}, KeyError, "more is unexpected"),
    ],
)
def test_a_state_that_does_not_fit_leaves_it_lazy(change: Any, error: type[Exception], message: str) -> None:
    layer = bn.LazyBatchNorm1d()
    with pytest.raises(error, match=message):
        layer.load_state_dict({**bn.BatchNorm1d(3).state_dict(), **change})
    assert_lazy(layer, bn.LazyBatchNorm1d)


class Unwilling:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no values yet")


@pytest.mark.parametrize("value", [Unwilling(), [[1.0], [2.0, 3.0]], None])
def test_a_state_whose_first_array_is_none(value: Any) -> None:
    layer = bn.LazyBatchNorm1d()
    with pytest.raises(TypeError, match="^weight is (None|of type .*), expected an array"):
        layer.load_state_dict({**bn.BatchNorm1d(3).state_dict(), "weight": value})
    assert type(layer) is bn.LazyBatchNorm1d


def test_a_state_without_arrays() -> None:
    layer = bn.LazyBatchNorm1d()
    with pytest.raises(KeyError, match="bias is missing"):
        layer.load_state_dict({})
    layer.load_state_dict({}, strict=False)
    layer.load_state_dict({"num_batches_tracked": 7, "other.weight": np.ones(3)}, strict=False)
    assert_lazy(layer, bn.LazyBatchNorm1d)
    # Keys that this layer has no array for tell it nothing.
    without = bn.LazyBatchNorm1d(affine=False)
    without.load_state_dict({"weight": np.ones(3, "f4")}, strict=False)
    assert type(without) is bn.LazyBatchNorm1d
    layer.load_state_dict({"running_mean": np.full(4, 2, "f4")}, strict=False)
    assert type(layer) is bn.BatchNorm1d
    assert layer.running_mean.tolist() == [2] * 4
    assert layer.gamma.tolist() == [1] * 4


def test_there_is_no_state_before() -> None:
    layer = bn.LazyBatchNorm3d()
    with pytest.raises(RuntimeError, match="there is no state yet"):
        layer.state_dict()
    layer.reset_parameters()
    layer.reset_running_stats()
    assert_lazy(layer, bn.LazyBatchNorm3d)


def test_repr() -> None:
    layer = bn.LazyBatchNorm2d(1e-3, None, bias=False, dtype="f8")
    text = "eps=0.001, momentum=None, affine=True, track_running_stats=True, dtype=float64, bias=False"
    assert repr(layer) == f"LazyBatchNorm2d({text})"
    assert layer.extra_repr() == text
    layer(np.ones((2, 3, 1, 1)))
    assert repr(layer) == f"BatchNorm2d(3, {text})"


def test_it_is_a_batch_norm_but_not_yet_one_of_two_dimensions() -> None:
    layer = bn.LazyBatchNorm2d()
    assert isinstance(layer, bn.BatchNorm)
    assert not isinstance(layer, bn.BatchNorm2d)
    layer(np.ones((2, 3, 1, 1), "f4"))
    assert isinstance(layer, bn.BatchNorm2d)


def test_scale_without_shift(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 2)).astype("f4")
    layer = bn.LazyBatchNorm1d(bias=False)
    layer(x)
    layer.gamma = layer.weight = np.float32([2, -3, 4])
    y, saved = bn.forward_training(x, layer.gamma)
    dx, dgamma, _ = bn.backward(dy, x, saved, gamma=layer.gamma)
    assert np.array_equal(layer(x), y)
    assert np.array_equal(layer.backward(dy), dx)
    assert np.array_equal(layer.grad_gamma, dgamma)
    assert layer.grad_beta is layer.beta is layer.bias is None
    assert list(layer.state_dict()) == ["weight", "running_mean", "running_var", "num_batches_tracked"]
    with pytest.raises(KeyError, match="bias is unexpected"):
        layer.load_state_dict(bn.BatchNorm1d(3).state_dict())
    layer.reset_parameters()
    assert layer.gamma.tolist() == [1] * 3
    assert layer.beta is None
    assert bn.BatchNorm1d(3, affine=False, bias=True).beta is None
    assert "bias" not in repr(bn.BatchNorm1d(3, affine=False, bias=False))


def test_lists_are_taken() -> None:
    layer = bn.LazyBatchNorm1d(dtype="f8")
    assert np.array_equal(layer([[1.0, 2.0], [3.0, 5.0]]), bn.BatchNorm1d(2, dtype="f8")([[1.0, 2.0], [3.0, 5.0]]))
