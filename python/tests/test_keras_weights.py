# SPDX-License-Identifier: Apache-2.0
"""The Keras layer's weights, initializers, dtype policies and config, and copies of it."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import pickle
import re
import sys
from typing import Any

import numpy as np
import pytest
from keras_formulas import NAMES, POLICIES, some_x, trained

import batchnorm as bn
from batchnorm.interop.keras import BatchNormalization

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return some_x(rng)


@pytest.fixture
def layer(rng: np.random.Generator, x: Array) -> BatchNormalization:
    return trained(rng, x)


def test_a_new_layer() -> None:
    layer = BatchNormalization(renorm=True)
    assert (layer.axis, layer.momentum, layer.epsilon) == (-1, 0.99, 1e-3)
    assert (layer.center, layer.scale, layer.trainable) == (True, True, True)
    assert not layer.built
    assert layer.weights == layer.trainable_weights == layer.non_trainable_weights == layer.get_weights() == []
    assert layer.gamma is layer.moving_mean is layer.renorm_mean is layer.grad_gamma is None
    layer.build((None, None, 3))
    assert layer.built
    for name, value in zip(NAMES, (1, 0, 0, 1, 1, 0, 1)):
        array = getattr(layer, name)
        assert array.dtype == np.float32
        assert array.tolist() == [value] * 3
    assert len({id(array) for array in layer.weights}) == 7
    assert layer.count_params() == 21


@pytest.mark.parametrize(("center", "scale", "renorm"), list(itertools.product([False, True], repeat=3)))
def test_lists_of_weights(center: bool, scale: bool, renorm: bool) -> None:
    layer = BatchNormalization(center=center, scale=scale, renorm=renorm)
    layer.build((2, 3))
    there = [scale, center, True, True, renorm, renorm, renorm]
    expected = [getattr(layer, name) for name, is_there in zip(NAMES, there) if is_there]
    affine = scale + center
    assert [id(a) for a in layer.weights] == [id(a) for a in expected]
    assert [id(a) for a in layer.trainable_weights] == [id(a) for a in expected[:affine]]
    assert [id(a) for a in layer.non_trainable_weights] == [id(a) for a in expected[affine:]]
    assert layer.count_params() == 3 * len(expected)
    layer.trainable = False
    assert layer.trainable_weights == []
    assert [id(a) for a in layer.non_trainable_weights] == [id(a) for a in expected]
    assert (layer.gamma is None, layer.beta is None) == (not scale, not center)


def test_initializers() -> None:
    given: list[Any] = []

    def function(shape: Any, dtype: Any) -> Any:
        given.append((shape, dtype))
        return np.arange(3, dtype=dtype)

    layer = BatchNormalization(
        beta_initializer="Ones",
        gamma_initializer=function,
        moving_mean_initializer=[1, 2, 3],
        moving_variance_initializer=4,
        renorm=True,
        dtype="float64",
    )
    layer.build((2, 3))
    assert given == [((3,), np.float64)]
    expected = [[0, 1, 2], [1, 1, 1], [1, 2, 3], [4, 4, 4], [2, 2, 2], [1, 2, 3], [2, 2, 2]]
    assert [a.tolist() for a in layer.weights] == expected
    assert all(a.dtype == np.float64 for a in layer.weights)


def test_an_array_that_initializes_is_copied() -> None:
    values = np.ones(2)
    layer, other = (BatchNormalization(gamma_initializer=values, dtype="float64") for _ in range(2))
    values[0] = 9
    for each in (layer, other):
        each.build((2, 2))
        assert each.gamma.tolist() == [1, 1]
    layer.gamma[0] = 5
    assert other.gamma.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", POLICIES)
def test_policies(dtype: str) -> None:
    compute, variable = (np.dtype(kind) for kind in POLICIES[dtype][:2])
    layer = BatchNormalization(dtype=dtype, renorm=True)
    assert (layer.dtype, layer.variable_dtype, layer.compute_dtype) == (variable.name, variable.name, compute.name)
    y = layer(np.zeros((2, 3)), training=True)
    assert y.dtype == layer.backward(y).dtype == compute
    assert {a.dtype for a in [*layer.weights, layer.grad_gamma, layer.grad_beta]} == {variable}
    for same in (layer._compute, layer._compute.type):
        assert dtype.startswith("mixed") or BatchNormalization(dtype=same).dtype == dtype


def test_bfloat16_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert BatchNormalization(dtype="mixed_float16").compute_dtype == "float16"
    with pytest.raises(ImportError, match="dtype 'bfloat16' needs the package ml_dtypes"):
        BatchNormalization(dtype="mixed_bfloat16")


def test_set_weights(layer: BatchNormalization, x: Array) -> None:
    arrays = layer.weights
    values = [np.full(3, n) + 0.5 for n in range(7)]
    layer.set_weights(values)
    assert [id(a) for a in layer.weights] == [id(a) for a in arrays]
    assert [a.tolist() for a in layer.weights] == [a.tolist() for a in values]
    kept = layer.get_weights()
    layer(x, training=True)
    assert [a.tolist() for a in kept] == [a.tolist() for a in values]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_own_weights_in_another_order(dtype: str) -> None:
    """All are read before any is written."""
    layer = BatchNormalization(dtype=dtype)
    layer.build((3, 2))
    layer.set_weights([[n, n] for n in range(4)])
    layer.set_weights(layer.weights[::-1])
    assert [a.tolist() for a in layer.weights] == [[n, n] for n in (3, 2, 1, 0)]


def test_what_is_beyond_a_dtype_is_infinite() -> None:
    layer = BatchNormalization(dtype="float16", moving_mean_initializer=1e6)
    layer.build((3, 1))
    layer.set_weights([[1e5], [-1e300], [0], [1]])
    assert [a.tolist() for a in layer.weights[:2]] == [[np.inf], [-np.inf]]
    layer.gamma[...] = 1
    layer(np.ones((4, 1)))
    layer.backward(np.full((4, 1), 6e4))
    assert layer.grad_beta.tolist() == [np.inf]


def test_config(layer: BatchNormalization) -> None:
    config = layer.get_config()
    assert json.loads(json.dumps(config)) == config
    parameters = inspect.signature(BatchNormalization).parameters
    assert set(config) == set(parameters)
    same = BatchNormalization.from_config(config)
    assert same.get_config() == config
    assert not same.built
    config["renorm_clipping"]["rmax"] = 5
    assert layer.renorm_clipping == {"rmax": 2}
    told: dict[str, Any] = {
        "axis": 1,
        "momentum": 0.5,
        "epsilon": 0.25,
        "center": False,
        "scale": False,
        "beta_initializer": "ones",
        "gamma_initializer": "zeros",
        "moving_mean_initializer": 0.5,
        "moving_variance_initializer": [2.0, 3.0],
        "renorm": True,
        "renorm_clipping": {"dmax": 1.0},
        "renorm_momentum": 0.75,
        "trainable": False,
        "dtype": "mixed_float16",
        "name": "of its own",
    }
    config = BatchNormalization(**told).get_config()
    for key, value in told.items():
        if not key.startswith("moving"):
            assert config[key] == value
        else:
            assert config[key]["config"] == {"value": value}
    same = BatchNormalization.from_config(json.loads(json.dumps(config)))
    assert same.get_config() == config
    same.build((1, 2))
    assert [a.tolist() for a in same.weights[:2]] == [[0.5, 0.5], [2, 3]]


def test_names() -> None:
    names = [BatchNormalization().name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"batch_normalization(_\d+)?", name) for name in names)
    assert BatchNormalization(name="a").name == "a"
    assert repr(BatchNormalization(name="a")) == "<BatchNormalization name=a, axis=-1, built=False>"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(layer: BatchNormalization, x: Array, copied: Any) -> None:
    other = copied(layer)
    assert other.get_config() == layer.get_config()
    assert [a.tolist() for a in other.weights] == [a.tolist() for a in layer.weights]
    assert other._last is None
    with pytest.raises(RuntimeError, match="before the layer"):
        other.backward(x)
    assert np.array_equal(other(x), layer(x))
    if copied is not copy.copy:
        other(x, training=True)
        assert not np.array_equal(other.moving_mean, layer.moving_mean)


def test_it_is_a_part_of_the_package() -> None:
    assert bn.interop.keras.BatchNormalization is BatchNormalization
