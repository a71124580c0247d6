# SPDX-License-Identifier: Apache-2.0
"""Files of .npz: members of an archive, each a header of Python's own words before the numbers."""

from __future__ import annotations

import ast
import io
import random
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from batchnorm.inspection import read_norms
from judge import refuses, same_arrays
from mutations import SIZES, mutated_bytes

NAME, SUFFIX, PACKAGES = "npz", ".npz", ()
_DESCRIPTIONS = ["<f4", "<f8", ">f4", "<f2", "|V2", "|V3", "|O", "<U4", "|S3", "<M8[s]", "<i8", "|b1", "<c16", "f", ""]
_DESCRIPTIONS += ["<f4,<f4", "<f4" * 40, "(2,2)<f4", "<f4294967297"]
_DESCRIPTIONS += [[("a", "<f4")], [], None, 4, ("<f4", (2,)), {"names": ["a"], "formats": ["<f4"]}]

# The archive's records begin so, and have their numbers there.
_RECORDS = [
    (b"PK\3\4", [4, 6, 8, 14, 18, 22, 26, 28]),
    (b"PK\1\2", [8, 10, 16, 20, 24, 28, 30, 32, 42]),
    (b"PK\5\6", [4, 8, 10, 12, 16, 20]),
]


def seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(1)
    layer = bn.BatchNorm(3)
    layer(rng.normal(size=(8, 3)).astype(np.float32))
    made = []
    for arrays in (layer.state_dict(), bn.to_state(layer, "flax", prefix="bn").arrays, {"x": rng.normal(size=(2, 3))}):
        bn.write_state(folder / "seed.npz", arrays)
        made.append((folder / "seed.npz").read_bytes())
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, a=np.asfortranarray(rng.normal(size=(4, 2))), b=np.zeros((30, 30)), c=np.arange(3), d=np.float16(2))
        made.append(file.getvalue())
    return made


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A member's header, name, checksum or numbers are others, or the record of it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    for _ in range(rng.choice([1, 1, 2])):
        index = rng.randrange(len(members))
        members[index] = rng.choice([_renamed, _with_header, _with_header, _with_header, _with_bytes])(
            rng, *members[index]
        )
    change = rng.randrange(10)
    if change == 0:
        members.append(rng.choice(members))
    elif change == 1:
        members.append((rng.choice(["x", "a/", "x.npy", "../x.npy", "readme.txt"]), rng.randbytes(rng.randrange(40))))
    elif change == 2:
        members = members[:1] * rng.choice([0, 2, 300])
    packing = rng.choice([zipfile.ZIP_STORED] * 8 + [zipfile.ZIP_DEFLATED] * 8 + [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, content in members:
                archive.writestr(name, content)
            if rng.random() < 0.1:
                archive.comment = rng.randbytes(rng.randrange(30))
    data = file.getvalue()
    return _with_record(rng, data) if rng.random() < 0.3 else data


def _renamed(rng: random.Random, name: str, content: bytes) -> tuple[str, bytes]:
    return rng.choice([".", "x", ".npy", "a.npy.npy", "/a.npy", "bn.weight.npy", "ä.npy", "a" * 300 + ".npy"]), content


def _with_header(rng: random.Random, name: str, content: bytes) -> tuple[str, bytes]:
    header, numbers = header_of(content)
    if header is None:
        return name, mutated_bytes(rng, content)
    change = rng.randrange(7)
    if change == 0:
        header["descr"] = rng.choice(_DESCRIPTIONS)
    elif change == 1:
        header["shape"] = tuple(rng.choice(SIZES) for _ in range(rng.choice([0, 1, 2, 5, 64, 65])))
    elif change == 2:
        header["shape"] = rng.choice([None, 3, "3", (1.5,), [3], (True,), (), (0,), (len(numbers),), (2**64, 0)])
    elif change == 3:
        header["fortran_order"] = rng.choice([True, False, 1, None, "no"])
    elif change == 4:
        header.pop(rng.choice(sorted(header)))
    elif change == 5:
        header[rng.choice(["more", "shape "])] = rng.choice([0, "x"])
    text = repr(header)
    if change == 6:
        others = ["(" * 5000, "-" * 3000 + "1", "1", "", "__import__('os')", "{'shape': 9" + "9" * 5000]
        text = rng.choice([text * 2, text[:-3], *others])
    version = rng.choice([(1, 0)] * 6 + [(2, 0), (3, 0), (0, 0), (255, 255)])
    encoded = text.encode()
    length = len(encoded) if rng.random() < 0.9 else rng.choice(SIZES)
    packed = struct.pack("<I", length % 2**32) if version[0] > 1 else struct.pack("<H", length % 2**16)
    return name, b"\x93NUMPY" + bytes(version) + packed + encoded + numbers


def _with_bytes(rng: random.Random, name: str, content: bytes) -> tuple[str, bytes]:
    return name, mutated_bytes(rng, content)


def _with_record(rng: random.Random, data: bytes) -> bytes:
    """A number in one of the archive's records is another: local header, directory, its end."""
    form, fields = rng.choice(_RECORDS)
    places = [i for i in range(len(data)) if data.startswith(form, i)]
    if not places:
        return data
    at = rng.choice(places) + rng.choice(fields)
    size = (
        rng.choice(SIZES) if rng.random() < 0.5 else int.from_bytes(data[at : at + 2], "little") + rng.choice([-1, 1])
    )
    width = rng.choice([2, 4])
    return data[:at] + (size % 256**width).to_bytes(width, "little") + data[at + width :]


def header_of(content: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """The header of a member and what stands behind it, or nothing where it is none."""
    if content[:8] != b"\x93NUMPY\1\0":
        return None, content
    (length,) = struct.unpack_from("<H", content, 8)
    try:
        header = ast.literal_eval(content[10 : 10 + length].decode("latin1"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None, content
    return (header if isinstance(header, dict) else None), content[10 + length :]


def independent(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, with neither NumPy's reader nor the package's."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            header, numbers = header_of(archive.read(entry))
            assert header is not None
            order = "F" if header["fortran_order"] else "C"
            array = np.frombuffer(numbers, np.dtype(header["descr"])).reshape(header["shape"], order=order)
            arrays[entry.filename[: -len(".npy")]] = array
    return arrays


def check(path: Path) -> bool:
    """True if it loads, and then to what it should."""
    refused, found = refuses(lambda: bn.read_state(path), path, names=str(path))
    refuses(lambda: read_norms(path), path)
    if not refused:
        same_arrays(found, independent(path))
    return not refused
