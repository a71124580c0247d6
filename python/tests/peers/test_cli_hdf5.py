# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect` and `convert` of files that are laid out as Keras lays them out, and of such as nobody should."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array, peer

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import Norm, read_norms
from batchnorm.inspection.of_keras import described

h5py = peer("h5py")

Captured = pytest.CaptureFixture[str]


def config(*layers: dict[str, Any]) -> str:
    made = [{"class_name": "BatchNormalization", "config": told} for told in layers]
    return json.dumps({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}, *made]}})


def settings(name: str, **told: Any) -> dict[str, Any]:
    return {"name": name, "epsilon": 0.25, "momentum": 0.5, "scale": True, "center": True, **told}


def weights(groups: dict[str, tuple[list[Array], Any]]) -> bytes:
    """Numbered variables, and what a group says that its layer is called."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for group, (arrays, name) in groups.items():
            for number, array in enumerate(arrays):
                file[f"layers/{group}/vars/{number}"] = array
            if name is not None:
                file[f"layers/{group}/vars"].attrs["name"] = name
    return content.getvalue()


def archive(path: Path, content: bytes, text: str | None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        if text is not None:
            file.writestr("config.json", text)
        file.writestr("model.weights.h5", content)
    return path


def drawn(rng: np.random.Generator, count: int = 4) -> list[Array]:
    return [rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(count)]


def same(norm: Norm, **arrays: Array) -> None:
    assert norm.unknown == ""
    for name in ("gamma", "beta", "mean", "var"):
        found = getattr(norm, name)
        assert (found is None) == (name not in arrays)
        assert found is None or np.array_equal(found, arrays[name])


def test_layers_that_have_names(rng: np.random.Generator, tmp_path: Path, capsys: Captured) -> None:
    """Groups are called after classes; which settings are theirs, only the name of the layer tells."""
    first, second, dense = drawn(rng), drawn(rng, 3), drawn(rng, 2)
    groups = {"batch_normalization": (first, "b"), "batch_normalization_1": (second, "a"), "dense": (dense, "dense")}
    text = config(settings("a", scale=False, epsilon=0.125), settings("b", momentum=0.75))
    path = archive(tmp_path / "m.keras", weights(groups), text)
    found = {each.name: each for each in read_norms(path)}
    assert sorted(found) == ["a", "b"]
    same(found["b"], **dict(zip(("gamma", "beta", "mean", "var"), first)))
    same(found["a"], **dict(zip(("beta", "mean", "var"), second)))
    assert (found["a"].eps, found["a"].momentum, found["b"].eps, found["b"].momentum) == (0.125, 0.5, 0.25, 0.25)
    output = tmp_path / "o.npz"
    told = ["convert", str(path), str(output), "--from", "keras", "--to", "flax", "--json"]
    assert cli.main(told) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert sorted(each["settings"]["epsilon"] for each in layers) == [0.125, 0.25]
    state = bn.read_state(output)
    for each in layers:
        made = bn.from_state(state, "flax", prefix=each["new_name"])
        expected = first if each["settings"]["epsilon"] == 0.25 else second
        np.testing.assert_array_equal(made.running_var, expected[-1])


def test_layers_without_names(rng: np.random.Generator, tmp_path: Path) -> None:
    """Early releases of Keras 3 wrote no names: settings that all layers share belong to each, and others to none."""
    first, second = drawn(rng), drawn(rng)
    groups = {"batch_normalization": (first, None), "mine": (second, None), "batch_normalization_1": (second, "c")}
    alike = config(settings("a"), settings("b"))
    path = archive(tmp_path / "m.keras", weights(groups), alike)
    [found] = read_norms(path)
    assert (found.name, found.eps, found.momentum) == ("layers/batch_normalization", 0.25, 0.5)
    same(found, **dict(zip(("gamma", "beta", "mean", "var"), first)))
    assert read_norms(archive(path, weights(groups), config(settings("a"), settings("b", epsilon=0.5)))) == []


@pytest.mark.parametrize("text", [None, "no JSON", "[" * 100_000, "{}", config({"epsilon": 1})])
def test_no_settings(rng: np.random.Generator, text: str | None, tmp_path: Path) -> None:
    """The numbers are there all the same, in the order in which Keras has them."""
    made = {count: drawn(rng, count) for count in (2, 3, 4)}
    groups = {f"batch_normalization_{count}": (arrays, 1.5) for count, arrays in made.items()}
    path = archive(tmp_path / "m.keras", weights({**groups, "dense": (drawn(rng), None)}), text)
    found = {each.name: each for each in read_norms(path)}
    assert sorted(found) == [f"layers/batch_normalization_{count}" for count in made]
    for count, arrays in made.items():
        norm = found[f"layers/batch_normalization_{count}"]
        assert (norm.eps, norm.assumed_eps) == (None, 1e-3)
        names = {2: ("mean", "var"), 3: ("", "mean", "var"), 4: ("gamma", "beta", "mean", "var")}[count]
        same(norm, **{name: array for name, array in zip(names, arrays) if name})


@pytest.mark.parametrize(("told", "count", "expected"), [({}, 3, 4), ({"scale": False}, 4, 3), (None, 5, 3)])
def test_numbers_of_arrays_that_do_not_fit(
    rng: np.random.Generator, told: dict[str, Any] | None, count: int, expected: int, tmp_path: Path
) -> None:
    text = None if told is None else config(settings("a", **told))
    groups = {"batch_normalization": (drawn(rng, count), "a")}
    [found] = read_norms(archive(tmp_path / "m.keras", weights(groups), text))
    assert found.unknown == f"it has {count} arrays, expected {expected}"


@pytest.mark.parametrize("told", [{"epsilon": "small"}, {"momentum": None}])
def test_settings_that_are_no_numbers(rng: np.random.Generator, told: dict[str, Any], tmp_path: Path) -> None:
    groups = {"batch_normalization": (drawn(rng), "a")}
    [found] = read_norms(archive(tmp_path / "m.keras", weights(groups), config(settings("a", **told))))
    assert (found.eps, found.momentum) == (None, None)


def test_models_of_keras_2(rng: np.random.Generator, tmp_path: Path, capsys: Captured) -> None:
    """The configuration is an attribute of the file, and variables have names."""
    path, output = tmp_path / "m.h5", tmp_path / "o.npz"
    names = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "var": "moving_variance"}
    arrays = dict(zip(names, drawn(rng)))
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config(settings("first", momentum=0.9), settings("other", epsilon=0.5))
        for name, array in arrays.items():
            file[f"model_weights/first/first/{names[name]}:0"] = array
    [found] = read_norms(path)
    same(found, **arrays)
    assert (found.eps, found.momentum) == (0.25, 0.1)
    for framework in ("keras", "tensorflow"):
        assert cli.main(["convert", str(path), str(output), "--from", framework, "--to", "pytorch", "--json"]) == 0
        [layer] = json.loads(capsys.readouterr().out)["layers"]
        assert layer["settings"]["eps"] == 0.25
        made = bn.from_state(bn.read_state(output), "pytorch", prefix=layer["new_name"])
        np.testing.assert_array_equal(made.running_mean, arrays["mean"])


def test_a_configuration_that_is_damaged(rng: np.random.Generator, tmp_path: Path, capsys: Captured) -> None:
    """In an archive whose numbers can be read."""
    groups = {"batch_normalization": (drawn(rng), "a")}
    path = archive(tmp_path / "m.keras", weights(groups), config(settings("a")))
    path.write_bytes(path.read_bytes().replace(b'"epsilon"', b'"epsilom"'))
    for command in (["inspect"], ["convert", str(tmp_path / "o.npz"), "--from", "keras", "--to", "flax"]):
        assert cli.main([command[0], str(path), *command[1:]]) == 1
        err = capsys.readouterr().err
        assert f"{path} cannot be read as .keras: Bad CRC-32 for file 'config.json'" in err
        assert err.count("\n") == 1


def test_no_memory_for_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said as what it is, and not as a file that is damaged."""
    path = archive(tmp_path / "m.keras", weights({}), config(settings("a")))

    def short(self: Any, count: int = -1) -> bytes:
        raise MemoryError

    monkeypatch.setattr(zipfile.ZipExtFile, "read", short)
    with pytest.raises(MemoryError):
        described(path)
