# SPDX-License-Identifier: Apache-2.0
"""A layer as people use modules elsewhere: forward, parameters, dtypes, attributes that are checked, names."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
from helpers import python

import batchnorm as bn

X = np.random.default_rng(20261207).normal(size=(6, 3, 4)).astype("f4")


def trained(**settings: Any) -> bn.BatchNorm1d:
    layer = bn.BatchNorm1d(3, **settings)
    layer.gamma = np.array([1, 2, 0.5], layer.param_dtype)
    layer(X.astype(layer.dtype))
    return layer


def test_forward_is_the_call() -> None:
    layer, other = trained(), trained()
    out = np.empty_like(X)
    assert layer.forward(X, out, residual=X, weights=np.ones((6, 4)), masked="zero") is out
    assert np.array_equal(out, other(X, residual=X, weights=np.ones((6, 4)), masked="zero"))
    assert layer.num_batches_tracked == other.num_batches_tracked == 2
    assert np.array_equal(layer.forward(X, lengths=[4] * 6, training=False), other.eval()(X, lengths=[4] * 6))
    lazy = bn.LazyBatchNorm1d()
    lazy.forward(X)
    assert type(lazy) is bn.BatchNorm1d


@pytest.mark.parametrize(
    "settings", [{}, {"activation": "relu"}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}]
)
def test_training_for_one_call(settings: Any) -> None:
    layer, other = (bn.BatchNorm1d(3, **settings) for _ in "12")
    layer(X), other(X)
    before = layer.state_dict()
    y = layer(X + 1, training=False)
    assert layer.training
    assert np.array_equal(y, other.eval()(X + 1))
    assert all(np.array_equal(before[key], array) for key, array in layer.state_dict().items())
    assert np.array_equal(layer.backward(X), other.backward(X))
    layer.eval()
    other.train()
    assert np.array_equal(layer(X, training=True), other(X))
    assert not layer.training
    assert all(np.array_equal(other.state_dict()[key], array) for key, array in layer.state_dict().items())
    assert np.array_equal(layer.backward(X), other.backward(X))
    for wrong in ("no", 1, np.zeros(2)):
        with pytest.raises(TypeError, match="training is"):
            layer(X, training=wrong)
    frozen = bn.FrozenBatchNorm2d(3)
    x = X[..., np.newaxis]
    assert np.array_equal(frozen(x, training=True), frozen(x, training=False))


def test_parameters() -> None:
    layer = trained()
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert [id(array) for array in layer.parameters()] == [id(layer.gamma), id(layer.beta)]
    assert [name for name, _ in bn.BatchNorm2d(3, bias=False).named_parameters()] == ["weight"]
    assert list(bn.BatchNorm(3, affine=False).parameters()) == []
    assert list(bn.FrozenBatchNorm2d(3).parameters()) == []
    with pytest.raises(RuntimeError, match="the first call tells"):
        next(bn.LazyBatchNorm1d().parameters())
    layer.backward(X)
    for array, gradient in zip(layer.parameters(), (layer.grad_weight, layer.grad_bias)):
        array -= np.float32(0.1) * gradient  # as an optimizer does
    assert layer.grad_weight is layer.grad_gamma
    assert layer.grad_bias is layer.grad_beta
    layer.grad_weight = layer.grad_bias = np.ones(3, "f4")
    assert layer.grad_gamma is layer.grad_beta is layer.grad_bias
    layer.zero_grad()
    assert layer.grad_gamma is layer.grad_beta is layer.grad_residual is None


DTYPES: dict[str, Any] = {"half": np.float16, "float": np.float32, "double": np.float64}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64])
def test_other_dtypes(name: str, source: Any) -> None:
    dtype = DTYPES[name]
    layer, fresh = trained(dtype=source), bn.BatchNorm1d(3, dtype=dtype)
    layer.backward(X.astype(source))
    state = layer.state_dict()
    assert getattr(layer, name)() is layer
    assert layer.dtype == dtype
    assert layer.param_dtype == fresh.param_dtype
    fresh.load_state_dict({key: array.astype(fresh.state_dict()[key].dtype) for key, array in state.items()})
    x = X.astype(dtype)
    assert np.array_equal(layer(x), fresh(x))
    assert np.array_equal(layer.backward(x), fresh.backward(x))
    for key, array in layer.state_dict().items():
        assert array.dtype == fresh.state_dict()[key].dtype
        assert np.array_equal(array, fresh.state_dict()[key])


def test_to_and_astype() -> None:
    layer = trained()
    layer.backward(X)
    gamma = layer.gamma
    wide = layer.astype(np.float64)
    assert (layer.dtype, wide.dtype, wide.gamma.dtype) == (np.float32, np.float64, np.float64)
    assert layer.gamma is gamma
    assert layer.grad_gamma is not None
    same = layer.astype(None)
    same.gamma[...] = 7
    assert gamma[0] == 1
    assert layer.to(np.float32).gamma is gamma
    assert layer.grad_gamma is None
    with pytest.raises(RuntimeError, match="before the layer"):
        layer.backward(X)
    narrow = layer.astype("f2", param_dtype="f2")
    assert narrow.gamma.dtype == narrow.param_dtype == np.float16
    half = bn.LazyBatchNorm1d().half()
    assert half([[1, 2], [3, 4]]).dtype == np.float16
    assert half.gamma.dtype == np.float32


def test_an_error_leaves_the_dtype_as_it_was() -> None:
    layer = trained(dtype=np.float64)
    layer.beta = [0.0, 1e300, 1.0]
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"beta has a value 1e\+300, which is beyond float32"):
        layer.float()
    assert layer.dtype == layer.param_dtype == layer.gamma.dtype == np.float64
    assert all(np.array_equal(before[key], array) for key, array in layer.state_dict().items())
    for wrong in ("cuda", np.int8):
        with pytest.raises(TypeError, match="dtype is"):
            layer.to(wrong)
    with pytest.raises(TypeError, match="param_dtype is float16, expected float32"):
        layer.to(np.float32, param_dtype=np.float16)


def test_bfloat16() -> None:
    pytest.importorskip("ml_dtypes")
    layer = trained().bfloat16()
    assert layer.dtype.name == "bfloat16"
    assert layer.gamma.dtype == np.float32
    assert layer([[1, 2, 3], [3, 2, 1]]).dtype == layer.dtype


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("momentun", "momentum"),
        ("traning", "training"),
        ("gama", "gamma"),
        ("epsilon", "eps"),
        ("running_men", "running_mean"),
    ],
)
@pytest.mark.parametrize("kind", [bn.BatchNorm, bn.BatchNorm2d, bn.FrozenBatchNorm2d])
def test_a_mistyped_attribute(kind: Any, name: str, near: str) -> None:
    layer = kind(3)
    before = dict(layer.__dict__)
    said = rf"{kind.__name__} has no attribute {name}" + ("" if name == "epsilon" else f": did you mean {near}")
    with pytest.raises(AttributeError, match=said):
        setattr(layer, name, 0.5)
    assert layer.__dict__ == before
    with pytest.raises(AttributeError):
        setattr(bn.LazyBatchNorm2d(), name, 0.5)


def test_a_class_of_ones_own_has_attributes_of_its_own() -> None:
    class Mine(bn.BatchNorm1d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.label = "mine"

    layer = Mine(3)
    layer.count = 3  # type: ignore[attr-defined]
    again = copy.deepcopy(layer)
    assert (again.label, again.count) == ("mine", 3)  # type: ignore[attr-defined]
    assert np.array_equal(again(X), layer(X))
    with pytest.raises(ValueError, match="eps is -1"):
        layer.eps = -1


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("training", "no", TypeError, "training is 'no', expected True or False"),
        ("training", None, TypeError, "training is None, expected True or False"),
        ("unbiased", 1, TypeError, "unbiased is 1, expected True or False"),
        ("affine", "yes", TypeError, "affine is 'yes'"),
        ("track_running_stats", 0, TypeError, "track_running_stats is 0"),
        ("eps", -1e-5, ValueError, "eps is -1e-05, expected a finite number, at least 0"),
        ("eps", np.nan, ValueError, "eps is nan, expected"),
        ("eps", np.inf, ValueError, "eps is inf, expected"),
        ("eps", "1e-5", TypeError, "eps is of type str"),
        ("eps", None, TypeError, "eps is of type NoneType"),
        ("momentum", 1.5, ValueError, "momentum is 1.5, expected a number from 0 to 1"),
        ("momentum", np.nan, ValueError, "momentum is nan, expected"),
        ("momentum", "a tenth", TypeError, "momentum is of type str"),
        ("num_batches_tracked", -1, ValueError, "num_batches_tracked is -1, expected at least 0"),
        ("num_batches_tracked", 1.5, ValueError, "num_batches_tracked is 1.5, expected a whole number"),
        ("num_batches_tracked", "two", TypeError, "num_batches_tracked has dtype"),
    ],
)
def test_what_an_attribute_may_be(name: str, value: Any, error: type[Exception], message: str) -> None:
    layer = trained()
    before = dict(layer.__dict__)
    with pytest.raises(error, match=message):
        setattr(layer, name, value)
    assert layer.__dict__ == before
    layer.eps, layer.momentum, layer.training, layer.num_batches_tracked = 1e-3, None, False, 5
    assert (layer.eps, layer.momentum, layer.training, layer.num_batches_tracked) == (1e-3, None, False, 5)


@pytest.mark.parametrize("kind", [bn.BatchNorm, bn.BatchNorm1d, bn.BatchNorm2d, bn.BatchNorm3d])
def test_positional_arguments_stand_in_pytorchs_order(kind: Any) -> None:
    layer = kind(4, 1e-3, 0.2, False, False)
    found = layer.eps, layer.momentum, layer.affine, layer.track_running_stats, layer.axis
    assert found == (1e-3, 0.2, False, False, 1)
    names = list(inspect.signature(kind).parameters)[:5]
    assert names == ["num_features", "eps", "momentum", "affine", "track_running_stats"]


def test_positional_arguments_of_lazy_and_frozen_layers() -> None:
    assert bn.LazyBatchNorm2d(1e-3, 0.2).eps == bn.FrozenBatchNorm2d(4, 1e-3).eps == 1e-3
    for axis in (-1, (1, 2)):
        with pytest.raises((TypeError, ValueError), match="^eps"):
            bn.BatchNorm(4, axis)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"LazyBatchNorm2d\.__init__\(\) got an unexpected|__init__\(\) got an unexpected"
    ):
        bn.LazyBatchNorm2d(epss=1)  # type: ignore[call-arg]


def test_what_a_star_import_brings() -> None:
    code = (
        "import keras_stub as keras, onnx_stub as onnx\n"
        "from batchnorm import *\n"
        "print(keras.__name__, onnx.__name__, sorted(dir(__import__('batchnorm'))))"
    )
    stub = "import sys, types\nfor n in ('keras_stub', 'onnx_stub'): sys.modules[n] = types.ModuleType(n)\n"
    done = python(stub + code)
    assert done.stdout.startswith("keras_stub onnx_stub "), done.stderr
    shown = dir(bn)
    assert [name for name in shown if name[0] == "_" and name != "__version__"] == []
    assert {"BatchNorm", "interop", "onnx", "forward_training"} <= set(shown)
    assert not {"cli", "demo", "inspection", "publish"} & set(shown)
    assert all(hasattr(bn, name) for name in shown)
