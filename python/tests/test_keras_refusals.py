# SPDX-License-Identifier: Apache-2.0
"""Refusals of the Keras layer: the error says why, and nothing has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras_formulas import NAMES, some_x, state, trained

from batchnorm.interop.keras import BatchNormalization

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return some_x(rng)


@pytest.fixture
def layer(rng: np.random.Generator, x: Array) -> BatchNormalization:
    return trained(rng, x)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"axis": 1.5}, TypeError, r"axis is 1\.5, expected an int"),
    ({"axis": [3]}, TypeError, r"axis is \[3\], expected an int"),
    ({"momentum": 1.5}, ValueError, r"^momentum is 1\.5, expected a number from 0 to 1"),
    ({"momentum": np.nan}, ValueError, "^momentum is nan"),
    ({"momentum": "0.9"}, TypeError, "^momentum is of type str"),
    ({"renorm_momentum": -0.1}, ValueError, r"^renorm_momentum is -0\.1, expected a number from 0 to 1"),
    ({"epsilon": -1e-3}, ValueError, r"^epsilon is -0\.001, expected a finite number of at least 0"),
    ({"epsilon": np.inf}, ValueError, "^epsilon is inf"),
    ({"epsilon": None}, TypeError, "^epsilon is of type NoneType"),
    ({"center": 1}, TypeError, "center is 1, expected True or False"),
    ({"scale": "no"}, TypeError, "scale is 'no', expected True or False"),
    ({"renorm": None}, TypeError, "renorm is None, expected True or False"),
    ({"trainable": 0}, TypeError, "trainable is 0, expected True or False"),
    ({"synchronized": True}, ValueError, "synchronized is True, expected False"),
    ({"beta_regularizer": "l2"}, ValueError, "beta_regularizer is 'l2', expected None"),
    ({"gamma_regularizer": "l2"}, ValueError, "gamma_regularizer is 'l2', expected None"),
    ({"beta_constraint": "max_norm"}, ValueError, "beta_constraint is 'max_norm', expected None"),
    ({"gamma_constraint": "max_norm"}, ValueError, "gamma_constraint is 'max_norm', expected None"),
    ({"renorm_clipping": [1]}, TypeError, "renorm_clipping is of type list, expected a dict"),
    ({"renorm_clipping": {"r_max": 1}}, ValueError, "renorm_clipping has a key 'r_max', expected 'rmin'"),
    ({"renorm_clipping": {"rmax": 0.5, "rmin": 2}}, ValueError, r"rmin of renorm_clipping is 2\.0, .* rmax, 0\.5"),
    ({"renorm_clipping": {"dmax": -1}}, ValueError, r"dmax of renorm_clipping is -1\.0, expected at least 0"),
    ({"renorm_clipping": {"rmin": np.nan}}, ValueError, "rmin of renorm_clipping is nan"),
    ({"renorm_clipping": {"rmax": "3"}}, TypeError, "rmax of renorm_clipping is of type str"),
    ({"gamma_initializer": "he_normal"}, ValueError, "gamma_initializer is 'he_normal', expected 'zeros', 'ones'"),
    ({"beta_initializer": None}, TypeError, "beta_initializer is None, expected 'zeros', 'ones'"),
    ({"beta_initializer": 1j}, TypeError, "beta_initializer is of type complex, expected a number"),
    ({"moving_mean_initializer": ["a"]}, TypeError, "moving_mean_initializer has dtype <U1, expected float64"),
    (
        {"moving_variance_initializer": {"class_name": "RandomNormal", "config": {}}},
        ValueError,
        "moving_variance_initializer is the config of 'RandomNormal', expected that of Zeros, Ones or Constant",
    ),
    ({"dtype": "int32"}, TypeError, "dtype is 'int32', expected one of 'float32', "),
    (
        {"dtype": {"config": {"name": "int8_from_float32"}}},
        TypeError,
        "dtype is .*int8_from_float32.*, expected one of",
    ),
    ({"dtype": ["float32"]}, TypeError, r"dtype is \['float32'\], expected one of"),
    ({"name": 3}, TypeError, "name is of type int, expected a text"),
    ({"fused": True}, TypeError, "'fused'"),
    ({"virtual_batch_size": 2}, TypeError, "'virtual_batch_size'"),
]


@pytest.mark.parametrize(("told", "error", "match"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_refused_arguments(told: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        BatchNormalization(**told)
    with pytest.raises(error, match=match):
        BatchNormalization.from_config(told)


def test_configs_of_initializers_and_limits_that_are_none() -> None:
    """Keras writes such configs."""
    layer = BatchNormalization(
        beta_initializer={"class_name": "Ones", "config": {}},
        gamma_initializer={"class_name": "Zeros", "config": {}},
        renorm=True,
        renorm_clipping={"rmin": None, "rmax": 2, "dmax": None},
    )
    layer.build((None, 3))
    assert layer.gamma.tolist() == [0, 0, 0]
    assert layer.beta.tolist() == [1, 1, 1]
    assert layer.get_config()["renorm_clipping"] == {"rmax": 2}


def test_refused_configs() -> None:
    with pytest.raises(TypeError, match="config is of type str, expected a dict"):
        BatchNormalization.from_config("{}")  # type: ignore[arg-type]
    layer = BatchNormalization(beta_initializer=np.zeros)
    with pytest.raises(TypeError, match="beta_initializer is a function, which a config cannot hold"):
        layer.get_config()


@pytest.mark.parametrize(
    ("told", "shape", "error", "match"),
    [
        ({"axis": 2}, (4, 3), ValueError, r"axis is 2, which inputs of shape \(4, 3\) do not have"),
        ({"axis": -3}, (4, 3), ValueError, r"axis is -3, which inputs of shape \(4, 3\) do not have"),
        ({}, (4, None), ValueError, r"input_shape is \(4, None\), with None at axis -1, expected at least 1 channel"),
        ({}, (4, 0), ValueError, "with 0 at axis -1, expected at least 1 channel"),
        ({}, (4, 2.5), TypeError, r"input_shape is \(4, 2\.5\), expected a tuple"),
        ({}, 3, TypeError, "input_shape is 3, expected a tuple"),
        ({"gamma_initializer": [1, 2]}, (4, 3), ValueError, r"gamma_initializer gives shape \(2,\), expected \(3,\)"),
        (
            {"moving_mean_initializer": lambda shape, dtype: np.zeros((1, *shape))},
            (4, 3),
            ValueError,
            r"moving_mean_initializer gives shape \(1, 3\), expected \(3,\)",
        ),
        ({"beta_initializer": lambda shape, dtype: ["a"] * 3}, (4, 3), TypeError, "beta_initializer has dtype <U1"),
        (
            {"moving_variance_initializer": -2, "renorm": True},
            (4, 3),
            ValueError,
            r"moving_variance_initializer gives -2\.0, which renorm takes the root of",
        ),
    ],
)
def test_refused_builds(told: dict[str, Any], shape: Any, error: type[Exception], match: str) -> None:
    layer = BatchNormalization(**told)
    with pytest.raises(error, match=match):
        layer.build(shape)
    assert not layer.built
    assert layer.gamma is layer.beta is layer.moving_mean is layer.moving_variance is None


def test_building_twice(layer: BatchNormalization) -> None:
    before = state(layer)
    with pytest.raises(RuntimeError, match=r"was built already, for inputs of shape \(4, 5, 3\)"):
        layer.build((4, 3))
    assert state(layer) == before


CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (np.zeros((4, 3)), {}, ValueError, r"inputs have shape \(4, 3\), expected 3 axes: .* built for \(4, 5, 3\)"),
    (np.float32(3), {}, ValueError, r"inputs have shape \(\), expected 3 axes"),
    (np.zeros((4, 5, 7)), {}, ValueError, "inputs have 7 channels at axis -1, but the layer has 3"),
    (np.full((4, 5, 3), "a"), {}, TypeError, "inputs of dtype <U1 cannot become float32: expected real numbers"),
    (np.zeros((4, 5, 3), complex), {}, TypeError, "inputs of dtype complex128 cannot become float32"),
    (np.ma.zeros((4, 5, 3)), {}, TypeError, "inputs is a masked array"),
    (None, {"training": "yes"}, TypeError, "training is 'yes', expected True or False"),
    (None, {"training": np.ones((4, 5), bool)}, TypeError, "training is of type numpy.ndarray, expected True or False"),
    (
        None,
        {"mask": np.ones((4, 5, 3))},
        ValueError,
        r"mask has shape \(4, 5, 3\), expected \(4, 5\): the inputs' with",
    ),
    (None, {"mask": np.ones(4)}, ValueError, r"mask has shape \(4,\), expected \(4, 5\)"),
    (None, {"mask": np.ones((4, 6))}, ValueError, r"mask has shape \(4, 6\), expected \(4, 5\)"),
    (None, {"mask": np.full((4, 5), "a")}, TypeError, "mask has dtype <U1, expected bool or real numbers"),
    (None, {"mask": np.ma.ones((4, 5))}, TypeError, "mask is a masked array"),
]


@pytest.mark.parametrize(("inputs", "told", "error", "match"), CALLS)
@pytest.mark.parametrize("training", [False, True])
def test_refused_calls(
    layer: BatchNormalization,
    x: Array,
    inputs: Any,
    told: dict[str, Any],
    error: type[Exception],
    match: str,
    training: bool,
) -> None:
    before = state(layer)
    with pytest.raises(error, match=match):
        layer(x if inputs is None else inputs, **{"training": training, **told})
    assert state(layer) == before
    layer.backward(x)
    assert layer.grad_beta.tolist() == before[-1][2]


def test_a_first_call_that_fails_builds_nothing(x: Array) -> None:
    layer = BatchNormalization()
    for inputs, told in ((x, {"mask": np.ones(9)}), (x, {"training": 3}), (x[..., :0], {}), (np.zeros(()), {})):
        with pytest.raises((ValueError, TypeError)):
            layer(inputs, **told)
        assert not layer.built
        assert layer.gamma is None
    with pytest.raises(RuntimeError, match=r"backward\(\) of the layer .* was called before the layer"):
        layer.backward(x)


def test_a_mask_that_differs_between_channels(x: Array) -> None:
    layer = BatchNormalization(axis=1)
    with pytest.raises(ValueError, match=r"mask has shape \(4, 5\), expected \(4, 1\): .* and 1 for the channels"):
        layer(x, training=True, mask=np.ones((4, 5)))
    samples = np.array([[True], [False], [True], [True]])
    assert np.allclose(layer(x, training=True, mask=samples)[samples[:, 0]].mean((0, 2)), 0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_do_not_fit(layer: BatchNormalization, x: Array, name: str) -> None:
    kept = getattr(layer, name)
    for value, error, match in (
        (None, TypeError, f"^{name} is of type NoneType, expected numpy.ndarray"),
        ([1.0, 2.0, 3.0], TypeError, f"^{name} is of type list, expected numpy.ndarray"),
        (np.ones(3), TypeError, f"^{name} has dtype float64, expected float32"),
        (np.ones(4, np.float32), ValueError, rf"^{name} has shape \(4,\), expected \(3,\)"),
    ):
        setattr(layer, name, value)
        for call in (lambda: layer(x), lambda: layer(x, training=True), lambda: layer.backward(x)):
            setattr(layer, name, kept)
            before = state(layer)
            setattr(layer, name, value)
            with pytest.raises(error, match=match):
                call()
            setattr(layer, name, kept)
            assert state(layer) == before


@pytest.mark.parametrize("name", NAMES[2:])
@pytest.mark.parametrize("kind", ["read-only", "scattered", "misaligned"])
def test_averages_that_cannot_be_updated(layer: BatchNormalization, x: Array, name: str, kind: str) -> None:
    array = np.ones(6, np.float32)[::2] if kind == "scattered" else np.ones(3, np.float32)
    if kind == "misaligned":
        array = np.zeros(13, np.uint8)[1:].view(np.float32)
    array[...] = getattr(layer, name)
    setattr(layer, name, array)
    array.flags.writeable = kind != "read-only"
    before = state(layer)
    with pytest.raises(ValueError, match=f"^{name} is read-only, not contiguous or misaligned, but it is updated"):
        layer(x, training=True)
    assert state(layer) == before
    # They are only read here.
    assert np.isfinite(layer(x)).all()


def test_refused_gradients(layer: BatchNormalization, x: Array) -> None:
    for renorm in (True, False):
        if not renorm:
            layer = BatchNormalization()
            layer(x, training=True)
        before = state(layer)
        for dy, error, match in (
            (x[:2], ValueError, r"dy has shape \(2, 5, 3\)"),
            (x + 1j, TypeError, "dy of dtype complex64 cannot become float32"),
            (3.0, ValueError, "dy"),
        ):
            with pytest.raises(error, match=match):
                layer.backward(dy)
            assert state(layer) == before


def test_refused_weights(layer: BatchNormalization) -> None:
    values, before = layer.get_weights(), state(layer)
    cases: list[tuple[list[Any], type[Exception], str]] = [
        (
            values[:-1],
            ValueError,
            "weights are 6 arrays, expected 7: gamma, beta, moving_mean, moving_variance, moving_",
        ),
        ([], ValueError, "weights are 0 arrays, expected 7"),
        ([*values[:6], np.zeros(4)], ValueError, r"renorm_stddev has shape \(4,\) among the weights, expected \(3,\)"),
        ([*values[:6], 3.0], ValueError, r"renorm_stddev has shape \(\) among the weights, expected \(3,\)"),
        ([*values[:3], np.zeros(3, complex), *values[4:]], TypeError, "moving_variance has dtype complex128"),
        ([values[0], ["a", "b", "c"], *values[2:]], TypeError, "beta has dtype <U1"),
    ]
    for weights, error, match in cases:
        with pytest.raises(error, match=match):
            layer.set_weights([a if isinstance(a, (list, float)) else a + 1 for a in weights] if weights else [])
        assert state(layer) == before
    layer.beta.flags.writeable = False
    with pytest.raises(ValueError, match="beta cannot be set: the layer's array is read-only"):
        layer.set_weights([a + 1 for a in values])
    layer.beta.flags.writeable = True
    assert state(layer) == before


def test_methods_that_come_too_early() -> None:
    layer = BatchNormalization(name="early")
    with pytest.raises(RuntimeError, match=r"set_weights\(\) of the layer 'early' was called before build\(\)"):
        layer.set_weights([])
    with pytest.raises(RuntimeError, match=r"count_params\(\) of the layer 'early' was called before build\(\)"):
        layer.count_params()
