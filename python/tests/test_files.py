# SPDX-License-Identifier: Apache-2.0
"""read_state() and write_state(): what comes back, hostile .npz files, and that a failure changes nothing.

.safetensors with its package is a peer.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
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


def test_a_message_is_no_longer_than_a_reader_is_patient(path: Path) -> None:
    """A length of a name that is damaged makes half of the file a name."""
    path.write_bytes(zipped(("a" * 60_000, b"")))
    with pytest.raises(ValueError, match=r"cannot be read as .npz: aaa.* \.\.\.$") as raised:
        bn.read_state(path)
    assert len(str(raised.value)) < 1000 + len(str(path)) + 100


def test_paths(tmp_path: Path) -> None:
    name = str(tmp_path / "a.npz")
    bn.write_state(name, {"x": np.arange(3)})
    assert bn.read_state(Path(name))["x"].tolist() == [0, 1, 2]


# Writing: all or nothing


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


# Paths


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


# Hostile files


def npy(shape: Any, dtype: str = "'<f4'", data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return with_header(header, data, version)


def with_header(header: bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(header)) + header + data


def zipped(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in entries:
                archive.writestr(name, data)
    return file.getvalue()


def of_objects() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([Bomb()], object), allow_pickle=True)
    return file.getvalue()


class Bomb:
    """What a pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def lying(data: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip file of which a field of the only entry is another, in both places."""
    central = data.index(b"PK\x01\x02")
    changed = bytearray(data)
    for at in (central + offset, offset - 2):  # the fields of a local header stand two bytes earlier
        struct.pack_into(form, changed, at, value)
    return bytes(changed)


def longer(shape: str, size: int) -> bytes:
    """A zip file of two numbers, of which the header of the array and both of the archive claim so many bytes."""
    array = npy(shape, data=bytes(8))
    return lying(zipped(("a.npy", array), compression=zipfile.ZIP_DEFLATED), 24, "<I", len(array) - 8 + size)


def hiding(data: bytes) -> bytes:
    """A zip file of two entries, the second of which counts as a comment on the first."""
    first, second = (data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02"))
    changed = bytearray(data)
    struct.pack_into("<H", changed, first + 32, data.index(b"PK\x05\x06") - second)
    return bytes(changed)


SCALAR = npy("()", data=bytes(4))
GOOD = zipped(("a.npy", npy("(2,)", data=bytes(8))))
DEFLATED = zipped(("a.npy", npy("(2000,)", data=bytes(8000))), compression=zipfile.ZIP_DEFLATED)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "File is not a zip file"),
    "a text": (lambda: b"state" * 100, "File is not a zip file"),
    "one array alone": (lambda: npy("(2,)", data=bytes(8)), "File is not a zip file"),
    "a pickle": (lambda: pickle.dumps(Bomb()), "File is not a zip file"),
    "objects": (lambda: zipped(("x.npy", of_objects())), "x: it is of dtype object, expected numbers"),
    "texts": (lambda: zipped(("x.npy", npy("(1,)", "'<U2'", bytes(8)))), "x: it is of dtype <U2, expected numbers"),
    "records": (lambda: zipped(("x.npy", npy("(1,)", "[('a', '<f4')]", bytes(4)))), "x: it is of dtype"),
    "nothing": (lambda: zipped(("x.npy", npy("(9,)", "'|V0'"))), r"x: it is of dtype \|V0, expected numbers"),
    "another dtype": (lambda: zipped(("x.npy", npy("(1,)", "'f5'"))), "x: descr is not a valid dtype descriptor"),
    "no array": (lambda: zipped(("readme.txt", b"hello")), "readme.txt is no array"),
    "a folder": (lambda: zipped(("x.npy/", b"")), "x.npy/ is no array"),
    "no name": (lambda: zipped((".npy", SCALAR)), ".npy is no array"),
    "an empty array": (lambda: zipped(("x.npy", b"")), "x: .*EOF"),
    "twice": (lambda: zipped(*[("x.npy", SCALAR)] * 2), "x is there twice"),
    "a petabyte": (lambda: zipped(("x.npy", npy(f"({2**48},)"))), "x: its header claims shape"),
    "beyond all": (lambda: zipped(("x.npy", npy(f"({10**30}, {10**30})"))), "x: its header claims shape"),
    "beyond all of nothing": (lambda: zipped(("x.npy", npy(f"(0, {10**30})"))), "x: "),
    "a negative number": (lambda: zipped(("x.npy", npy("(-1, -2)", data=bytes(8)))), r"x: .* shape \(-1, -2\)"),
    "too many axes": (lambda: zipped(("x.npy", npy((1,) * 100, data=bytes(4)))), "x: maximum supported dimension"),
    "a half number": (lambda: zipped(("x.npy", npy("(2.5,)", data=bytes(10)))), "x: shape is not valid"),
    "too few bytes": (lambda: zipped(("x.npy", npy("(3,)", data=bytes(8)))), r"x: .* claims shape \(3,\) .* 8 bytes"),
    "too many bytes": (lambda: zipped(("x.npy", npy("(1,)", data=bytes(8)))), r"x: .* claims shape \(1,\) .* 8 bytes"),
    "version 2": (lambda: zipped(("x.npy", npy("()", data=bytes(4), version=(2, 0)))), r"x: it is of version \(2, 0\)"),
    "version 9": (lambda: zipped(("x.npy", npy("()", data=bytes(4), version=(9, 0)))), r"x: it is of version \(9, 0\)"),
    "a deep header": (lambda: zipped(("x.npy", with_header(b"(" * 9000))), "x: "),
    "a deeper header": (
        lambda: zipped(("x.npy", with_header(b"-" * 9000 + b"1"))),
        "x: (its header cannot be read|malformed)",
    ),
    "a long header": (lambda: zipped(("x.npy", with_header(b" " * 60_000))), "x: Header info length"),
    "code in the header": (lambda: zipped(("x.npy", with_header(b"exit(3)"))), "x: "),
    "no header": (lambda: zipped(("x.npy", with_header(b"{}"))), "x: Header does not contain the correct keys"),
    "cut": (lambda: GOOD[:-30], "File is not a zip file"),
    "cut at the front": (lambda: GOOD[30:], ""),
    "a changed byte": (lambda: GOOD.replace(bytes(8), b"\1" * 8), "a: Bad CRC-32"),
    "a changed byte, deflated": (lambda: DEFLATED[:120] + b"\xff\xff\xff" + DEFLATED[123:], "a: "),
    "more data than there are": (lambda: lying(GOOD, 20, "<I", 2**31), "its entries claim more than the file has"),
    "a hidden entry": (lambda: hiding(zipped(*[(each, SCALAR) for each in ("a.npy", "b.npy")])), "it has another"),
    "less data than there are": (lambda: lying(DEFLATED, 20, "<I", 5), "a: "),
    "longer than it is": (lambda: lying(DEFLATED, 24, "<I", 2**31), "a: its header claims"),
    "shorter than it is": (lambda: lying(DEFLATED, 24, "<I", 4000), "a: "),
    "a bomb": (lambda: longer("(100000000,)", 4 * 10**8), "a: it claims 400000000 bytes, more than its"),
    "an end that comes early": (lambda: longer("(1000,)", 4000), "a: it ends after 8 of 4000 bytes"),
    "encrypted": (lambda: lying(GOOD, 8, "<H", 1), "a: .*encrypted"),
    "another compression": (lambda: lying(GOOD, 10, "<H", 99), "a: .*compression"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(path: Path, kind: str) -> None:
    make, message = HOSTILE[kind]
    path.write_bytes(make())
    with pytest.raises(ValueError, match=f"^{path} cannot be read as .npz: {message}"):
        bn.read_state(path)


def test_no_memory_for_an_array(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said as what it is, and not as a file that is damaged."""
    path.write_bytes(GOOD)

    def short(*arguments: Any, **told: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", short)
    with pytest.raises(MemoryError):
        bn.read_state(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_files(rng: np.random.Generator, path: Path, compression: int) -> None:
    """Cut anywhere, or with any byte changed: what was there, or an error that names the file."""
    arrays = {"a": rng.normal(size=5), "b": np.arange(7)}
    entries = []
    for key, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, array)
        entries.append((key + ".npy", file.getvalue()))
    good = zipped(*entries, compression=compression)
    refused = 0
    for case in range(300):
        data = bytearray(good)
        at = int(rng.integers(len(data)))
        if case % 3:
            data[at] ^= int(rng.integers(1, 256))
        else:
            del data[at:]
        path.write_bytes(data)
        message = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, about headers that Python 2 may have written
                read = bn.read_state(path)
        except ValueError as error:
            message = str(error)
        if message:
            assert message.startswith(f"{path} cannot be read as .npz: ")
            refused += 1
        else:
            # A byte of a name, a date, a permission: no byte of the data.
            assert [array.tobytes() for array in read.values()] == [array.tobytes() for array in arrays.values()]
    assert refused > 150
