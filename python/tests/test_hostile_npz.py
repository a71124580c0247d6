# SPDX-License-Identifier: Apache-2.0
"""Files that are no .npz, lie about themselves, or are damaged: read_state() says so."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.npz"


def test_a_message_is_no_longer_than_a_reader_is_patient(path: Path) -> None:
    """A length of a name that is damaged makes half of the file a name."""
    path.write_bytes(zipped(("a" * 60_000, b"")))
    with pytest.raises(ValueError, match=r"cannot be read as .npz: aaa.* \.\.\.$") as raised:
        bn.read_state(path)
    assert len(str(raised.value)) < 1000 + len(str(path)) + 100


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
    """An object whose pickle runs code when it is loaded."""

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
