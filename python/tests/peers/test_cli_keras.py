# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect` and `convert` of what Keras writes: models, and weights without the configuration of a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import peer

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import read_norms

os.environ["KERAS_BACKEND"] = "torch"
keras = peer("keras")
peer("h5py")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def model(rng: np.random.Generator) -> Any:
    kind = keras.layers.BatchNormalization
    inner = keras.Sequential([keras.Input((4, 4, 5)), kind(center=False, epsilon=0.25, name="inside")], name="inner")
    layers = [keras.layers.Conv2D(5, 3), kind(name="first"), kind(scale=False, momentum=0.5, name="second"), inner]
    made = keras.Sequential([keras.Input((6, 6, 3)), *layers, kind(scale=False, center=False, name="bare")])
    for variable in made.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 2, variable.shape).astype("f4"))
    return made


def layers_of(model: Any) -> dict[str, Any]:
    inside = model.get_layer("inner").get_layer("inside")
    return {each.name: each for each in (*(model.get_layer(name) for name in ("first", "second", "bare")), inside)}


def exact(layer: Any, name: str) -> Any:
    variable = getattr(layer, name)
    return None if variable is None else np.asarray(keras.ops.convert_to_numpy(variable))


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.filterwarnings("ignore")
def test_models(name: str, model: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    model.save(path)
    found = {each.name.rpartition("/")[2]: each for each in read_norms(path)}
    layers = layers_of(model)
    assert sorted(found) == sorted(layers)
    for key, each in found.items():
        for mine, theirs in (("gamma", "gamma"), ("beta", "beta"), ("mean", "moving_mean"), ("var", "moving_variance")):
            expected = exact(layers[key], theirs)
            assert (getattr(each, mine) is None) == (expected is None), (key, mine)
            if expected is not None:
                np.testing.assert_array_equal(getattr(each, mine), expected)
        assert each.eps == layers[key].epsilon
        assert each.momentum == pytest.approx(1 - layers[key].momentum)


def test_weights_alone(model: Any, tmp_path: Path) -> None:
    """The file does not say which of gamma and beta is there: neither is taken for the other."""
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    found = {each.name: each for each in read_norms(path)}
    layers = layers_of(model)
    assert sorted(found) == sorted(layers)
    for key, each in found.items():
        assert each.eps is None
        np.testing.assert_array_equal(each.mean, exact(layers[key], "moving_mean"))
        np.testing.assert_array_equal(each.var, exact(layers[key], "moving_variance"))
    np.testing.assert_array_equal(found["first"].gamma, exact(layers["first"], "gamma"))
    assert found["second"].gamma is found["second"].beta is found["inside"].gamma is None


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.filterwarnings("ignore")
def test_convert(name: str, model: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """A layer here computes what Keras's does, with eps from the file and the gamma that PyTorch needs."""
    path, output = tmp_path / name, tmp_path / "o.npz"
    model.save(path)
    assert cli.main(["convert", str(path), str(output), "--from", "keras", "--to", "pytorch"]) == 0
    state = bn.read_state(output)
    prefixes = sorted({key.rpartition(".")[0] for key in state})
    assert len(prefixes) == 4
    x = rng.normal(1, 2, (7, 5)).astype("f4")
    made = [bn.from_state(state, "pytorch", prefix=prefix, eps=eps) for prefix in prefixes for eps in (1e-3, 0.25)]
    outputs = [each.eval()(x) for each in made]
    for layer in layers_of(model).values():
        layer_of_rows = keras.layers.BatchNormalization.from_config({**layer.get_config(), "axis": -1})
        layer_of_rows.build((None, 5))
        layer_of_rows.set_weights(layer.get_weights())
        y = np.asarray(keras.ops.convert_to_numpy(layer_of_rows(x, training=False)))
        assert min(float(np.abs(y - each).max()) for each in outputs) < 1e-5


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.filterwarnings("ignore")
def test_files_that_are_cut_off(name: str, model: Any, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / name
    model.save(path)
    whole = path.read_bytes()
    for length in [1, 8, 100, *range(500, len(whole), len(whole) // 12)]:
        path.write_bytes(whole[:length])
        assert cli.main(["inspect", str(path)]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("batchnorm inspect: ")
