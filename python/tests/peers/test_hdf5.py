# SPDX-License-Identifier: Apache-2.0
"""read_state() of HDF5: what Keras has written, and such as nobody should."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import peer
from states import arrays_of, same

import batchnorm as bn
from batchnorm.interop import model_files


@pytest.fixture
def h5py() -> Any:
    return peer("h5py")


def test_what_keras_2_wrote(rng: np.random.Generator, h5py: Any, tmp_path: Path) -> None:
    arrays = arrays_of(rng)
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        for name, array in zip(("gamma", "beta", "moving_mean", "moving_variance"), arrays):
            file[f"model_weights/bn1/bn1/{name}:0"] = array
        file["model_weights"].attrs["layer_names"] = [b"bn1"]
        file["optimizer_weights/training/Adam/bn1/gamma/m:0"] = arrays[0]
    read = bn.read_state(path)
    assert same(bn.from_state(read, "keras", prefix="model_weights/bn1/bn1"), arrays)
    with pytest.raises(KeyError, match="layers are at prefix 'model_weights/bn1/bn1'"):
        bn.from_state(read, "keras", prefix="bn1")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i4", "i8", "u1", "?", "V2"])
@pytest.mark.parametrize(
    "told", [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True, "fletcher32": True}]
)
def test_datasets(rng: np.random.Generator, h5py: Any, tmp_path: Path, dtype: str, told: dict[str, Any]) -> None:
    array = abs(rng.normal(size=(3, 4)) * 3).astype("bfloat16" if dtype == "V2" else dtype)
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        given = array.view("V2") if dtype == "V2" else array
        file.create_dataset("b/x", data=given, **told)
        file["a"] = given[0, 0]
        file["c"] = given[:0]
        file["zeros"] = np.zeros(100)
    read = bn.read_state(path)
    assert list(read) == ["a", "b/x", "c", "zeros"]
    assert read["b/x"].tobytes() == array.tobytes()
    assert read["b/x"].dtype == array.dtype
    assert read["a"].shape == ()
    assert read["c"].shape == (0, 4)
    assert read["b/x"].flags.writeable


def written(change: Callable[[Any, Any], None]) -> Callable[[Any, Path], None]:
    def write(h5py: Any, path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["first"] = np.ones(3)
            change(h5py, file)

    return write


def external(h5py: Any, file: Any) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(h5py: Any, file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


def filtered(h5py: Any, file: Any) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((8,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((8,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, properties)


def looping(h5py: Any, file: Any) -> None:
    file.create_group("a")["up"] = file["/"]


HDF5: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "a text": (written(lambda h5py, file: file.__setitem__("x", "text")), "x is of dtype object, expected numbers"),
    "nothing": (written(lambda h5py, file: file.__setitem__("x", h5py.Empty("f4"))), "x is no array"),
    "a type": (written(lambda h5py, file: file.__setitem__("x", np.dtype("f8"))), "x is no array"),
    "records": (
        written(lambda h5py, file: file.__setitem__("x", np.zeros(2, [("a", "f4")]))),
        r"x is of dtype \[\('a', '<f4'\)\], expected numbers",
    ),
    "a soft link": (
        written(lambda h5py, file: file.__setitem__("x", h5py.SoftLink("/first"))),
        "x is a link to elsewhere",
    ),
    "an external link": (
        written(lambda h5py, file: file.__setitem__("x", h5py.ExternalLink("/etc/x.h5", "y"))),
        "x is a link to elsewhere",
    ),
    "external numbers": (written(external), "x has its numbers in another file"),
    "virtual numbers": (written(virtual), "x has its numbers in another file"),
    "a filter to be loaded": (written(filtered), "x is packed by filter 32015, expected one of deflate"),
    "a loop": (written(looping), "a/up is there under another name, too"),
    "a name more": (
        written(lambda h5py, file: file.__setitem__("x", file["first"])),
        "is there under another name, too",
    ),
    "a petabyte": (
        written(lambda h5py, file: file.create_dataset("x", (1 << 47,), "f8", chunks=(1024,))),
        r"x claims shape \(140737488355328,\) of float64, but has 0 bytes in the file",
    ),
    "empty": (lambda h5py, path: path.write_bytes(b""), ""),
    "a text file": (lambda h5py, path: path.write_bytes(b"text" * 1000), ""),
}


@pytest.mark.parametrize("kind", HDF5)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_hostile_hdf5(h5py: Any, tmp_path: Path, kind: str, suffix: str) -> None:
    write, message = HDF5[kind]
    plain, path = tmp_path / "plain.h5", tmp_path / f"hostile{suffix}"
    write(h5py, plain)
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(plain, "model.weights.h5")
    else:
        plain.rename(path)
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as {suffix}: .*{message}"):
        bn.read_state(path)


def test_datasets_that_share_their_bytes(h5py: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that claim more than they have, which h5py does not write."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.ones(4000), np.ones(4000)
    monkeypatch.setattr(model_files, "_size", lambda file: 63_999)
    with pytest.raises(ValueError, match="[xy] and what is before it claim more bytes than the file has"):
        bn.read_state(path)


def test_zeros_that_are_packed_twice(h5py: Any, tmp_path: Path) -> None:
    """A file of 3 KB would fill 256 MB: it is deflated in HDF5, and once more in the archive around that."""
    inner, path = tmp_path / "a.h5", tmp_path / "a.keras"
    with h5py.File(inner, "w") as file:
        file.create_dataset("x", data=np.zeros(1 << 25, np.uint8), chunks=(1 << 20,), compression="gzip")
    assert bn.read_state(inner)["x"].nbytes == 1 << 25
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "model.weights.h5")
    assert path.stat().st_size * 1100 < 1 << 25
    with pytest.raises(ValueError, match="x and what is before it are packed twice: 1100 times what the file is"):
        bn.read_state(path)


def test_damaged_hdf5(rng: np.random.Generator, h5py: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = rng.normal(size=100)
    good = path.read_bytes()
    for end in rng.integers(0, len(good) - 800, 20).tolist():
        path.write_bytes(good[:end])
        with pytest.raises(ValueError, match="cannot be read as .h5"):
            bn.read_state(path)
