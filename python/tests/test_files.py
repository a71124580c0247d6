# SPDX-License-Identifier: Apache-2.0
"""read_state() and write_state(): .npz there and back, written as a whole or not at all, and paths."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import python

import batchnorm as bn

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def same(first: dict[str, Array], second: dict[str, Array]) -> bool:
    return list(first) == list(second) and all(
        first[key].dtype == second[key].dtype
        and first[key].shape == second[key].shape
        and first[key].tobytes() == second[key].tobytes()
        for key in first
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.npz"


@pytest.mark.parametrize(
    "dtype", ["f4", "f8", "f2", BFLOAT16, "i8", "i4", "i2", "i1", "u8", "u1", "?", "c8", "c16", ">f4"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 0, 2)])
def test_there_and_back(rng: np.random.Generator, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    with np.errstate(all="ignore"):
        array = (rng.normal(size=shape) * 3).astype(dtype)
    bn.write_state(path, {"a": array})
    read = bn.read_state(path)
    assert same(read, {"a": array})
    assert read["a"].flags.writeable
    assert read["a"].flags.c_contiguous


NAMES = [
    "a",
    "file",
    "arr_0",
    "layer1.0.bn2.weight",
    "params/a b/scale",
    "../x",
    "/x",
    "a.npy",
    "ä\u2028",
    "\\",
    " ",
    ".",
]


def test_names(path: Path) -> None:
    arrays = {name: np.array(i) for i, name in enumerate(NAMES)}
    bn.write_state(path, arrays)
    assert same(bn.read_state(path), arrays)
    with np.load(path, allow_pickle=False) as loaded:
        # NumPy takes "a.npy" for "a", whichever there is.
        names = [name for name in loaded.files if name != "a.npy"]
        assert {name: int(loaded[name]) for name in names} == {name: NAMES.index(name) for name in names}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(rng: np.random.Generator, path: Path, save: Any) -> None:
    array = rng.normal(size=(3, 4)).astype(np.float32)
    arrays = {"c": array, "fortran": np.asfortranarray(array), "part": array[::2, 1:], "zeros": np.zeros((300, 300))}
    save(path, **arrays)
    assert same(bn.read_state(path), arrays)


def test_bfloat16_is_written_as_two_bytes(path: Path) -> None:
    array = np.array([1.5, -2], BFLOAT16)
    bn.write_state(path, {"a": array, "b": array.view("V2")})
    assert path.read_bytes().count(b"'descr': '|V2'") == 2
    assert same(bn.read_state(path), {"a": array, "b": array})


def test_a_layer(rng: np.random.Generator, path: Path) -> None:
    layer = bn.BatchNorm(3)
    layer(rng.normal(size=(5, 3)).astype(np.float32))
    bn.write_state(path, bn.to_state(layer, "pytorch", prefix="bn1").arrays)
    again = bn.from_state(bn.read_state(path), "pytorch", prefix="bn1")
    assert same(again.state_dict(), layer.state_dict())


def test_what_is_not_contiguous_and_lists(path: Path) -> None:
    x = np.arange(12.0).reshape(3, 4)
    bn.write_state(path, {"a": x[::2, ::-1], "b": x.T, "c": [1.5, 2.5], "d": 3})
    assert same(bn.read_state(path), {"a": x[::2, ::-1], "b": x.T, "c": np.array([1.5, 2.5]), "d": np.array(3)})


def test_no_arrays(path: Path) -> None:
    bn.write_state(path, {})
    assert bn.read_state(path) == {}


def test_a_comment_of_the_archive(path: Path) -> None:
    bn.write_state(path, {"a": np.ones(2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"of a layer"
    assert list(bn.read_state(path)) == ["a"]


def test_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        bn.write_state(tmp_path / name, {"x": np.arange(3)})
    first, second = (tmp_path / name for name in ("a.npz", "b.npz"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


def test_paths(tmp_path: Path) -> None:
    name = str(tmp_path / "a.npz")
    bn.write_state(name, {"x": np.arange(3)})
    assert bn.read_state(Path(name))["x"].tolist() == [0, 1, 2]


class Unwilling:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise RuntimeError("no values yet")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([], TypeError, "arrays is of type list, expected a mapping of names to arrays"),
        ({3: [1]}, TypeError, "the key 3 is of type int, expected a text"),
        ({"": [1]}, ValueError, "the key '' cannot be the name of an array in .npz"),
        ({"a\0b": [1]}, ValueError, r"the key 'a\\x00b' cannot be the name"),
        ({"\ud800": [1]}, ValueError, r"the key '\\ud800' is no valid text"),
        ({"a" * 70_000: [1]}, ValueError, "the key 'aaa.* cannot be the name"),
        ({"x": [None]}, TypeError, "x has dtype object, expected numbers"),
        ({"x": {"y": 1}}, TypeError, "x has dtype object, expected numbers"),
        ({"x": "text"}, TypeError, "x has dtype <U4, expected numbers"),
        ({"x": np.zeros(2, "M8[s]")}, TypeError, "x has dtype datetime64"),
        ({"x": np.zeros(2, [("a", "f4")])}, TypeError, "x has dtype"),
        ({"x": np.zeros(2, "V3")}, TypeError, r"x has dtype \|V3"),
        ({"x": np.ma.zeros(2)}, TypeError, "x is a masked array"),
        ({"x": Unwilling()}, TypeError, "x is of type .*Unwilling, expected an array: no values yet"),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_what_cannot_be_written(path: Path, arrays: Any, error: type[Exception], message: str, is_there: bool) -> None:
    if is_there:
        path.write_bytes(b"older")
    if isinstance(arrays, dict):
        arrays = {"first": np.ones(3), **arrays}
    with pytest.raises(error, match=message):
        bn.write_state(path, arrays)
    assert list(path.parent.iterdir()) == ([path] if is_there else [])
    assert not is_there or path.read_bytes() == b"older"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_failure_while_it_is_written(path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    if is_there:
        path.write_bytes(b"older")
    write = np.lib.format.write_array
    calls = []

    def full(file: Any, array: Array, **told: Any) -> None:
        write(file, array, **told)
        calls.append(sorted(each.name for each in path.parent.iterdir()))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left on device"):
        bn.write_state(path, {"a": np.ones(3), "b": np.ones(3)})
    # It was written beside, under a name that is no one's.
    assert len(calls[0]) == 1 + is_there
    assert any(name.startswith(".") for name in calls[0])
    assert list(path.parent.iterdir()) == ([path] if is_there else [])
    assert not is_there or path.read_bytes() == b"older"


def test_an_older_file_is_replaced(path: Path) -> None:
    path.write_bytes(b"older")
    with path.open("rb") as reader:
        bn.write_state(path, {"a": np.ones(3)})
        assert reader.read() == b"older"
    assert list(path.parent.iterdir()) == [path]
    assert list(bn.read_state(path)) == ["a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.npz", tmp_path / "b.npz"
    target.write_bytes(b"older")
    link.symlink_to(target)
    bn.write_state(link, {"a": np.ones(3)})
    assert link.is_symlink()
    assert list(bn.read_state(target)) == ["a"]


def test_an_open_mode_as_of_any_new_file(path: Path) -> None:
    bn.write_state(path, {})
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("name", ["a.npy", "a", "a.pkl", "a.NPZ", ".npz", "a.npz.gz", "a.h5", "a.pt", "a.onnx"])
def test_other_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"has suffix '.*', expected '\.npz' or '\.safetensors'$"):
        bn.write_state(tmp_path / name, {})
    if Path(name).suffix not in (".h5", ".pt", ".onnx"):
        expected = r"'\.npz' or '\.safetensors' or '\.h5' or '\.keras' or '\.onnx' or '\.pt' or '\.pth'$"
        with pytest.raises(ValueError, match=rf"has suffix '.*', expected {expected}"):
            bn.read_state(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "package"),
    [
        (".h5", "h5py"),
        (".weights.h5", "h5py"),
        (".keras", "h5py"),
        (".onnx", "onnx"),
        (".pt", "torch"),
        (".pth", "torch"),
    ],
)
def test_files_of_models_without_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=rf"^{path} needs the package {package}, which is not installed"):
        bn.read_state(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        bn.read_state(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        bn.write_state(tmp_path / "none" / "a.npz", {})
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        bn.read_state(tmp_path / "folder.npz")
    with pytest.raises(IsADirectoryError):
        bn.write_state(tmp_path / "folder.npz", {})
    assert [each.name for each in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize("value", [None, 3, b"a.npz"])
def test_what_is_no_path(value: Any) -> None:
    with pytest.raises(TypeError):
        bn.read_state(value)


def test_safetensors_without_its_package(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    other = path.with_name("a.safetensors")
    message = r"a\.safetensors needs the package safetensors, which is not installed"
    with pytest.raises(ImportError, match=message):
        bn.write_state(other, {"a": np.ones(2)})
    assert list(path.parent.iterdir()) == []
    other.write_bytes(b"")
    with pytest.raises(ImportError, match=message):
        bn.read_state(other)


def test_bfloat16_without_its_package(path: Path) -> None:
    bn.write_state(path, {"a.weight": np.ones(2, BFLOAT16)})
    code = """
import sys
sys.modules["ml_dtypes"] = None
import batchnorm as bn
try:
    bn.read_state(sys.argv[1])
except ValueError as error:
    print(error)
"""
    message = "a.weight is of bfloat16, a dtype of the package ml_dtypes, which is not installed"
    done = python(code, str(path))
    assert done.stdout == f"{path} cannot be read as .npz: {message}\n", done
