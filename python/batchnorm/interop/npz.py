# SPDX-License-Identifier: Apache-2.0
"""The format .npz, in which nothing is trusted: a header is looked at before memory is asked for."""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .._core.layout import BITS, code_of
from .._core.tensors import bfloat16

Arrays = dict[str, NDArray[Any]]


def read_npz(file: IO[bytes]) -> Arrays:
    arrays: Arrays = {}
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # NumPy reads as many bytes at once as a header claims.
        if sum(entry.compress_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries claim more than the file has")
        # In a damaged directory one entry may hide others. The record at the end, of 22 bytes, has their number.
        file.seek(-22 - len(archive.comment), os.SEEK_END)
        if int.from_bytes(file.read(12)[10:], "little") != min(len(entries), 0xFFFF):
            raise ValueError("it has another number of entries than it says")
        for entry in entries:
            key, point, kind = entry.filename.rpartition(".")
            if not key or (point, kind) != (".", "npy"):
                raise ValueError(f"{entry.filename} is no array")
            if key in arrays:
                raise ValueError(f"{key} is there twice")
            try:
                array = _read_npy(archive, entry)
            except MemoryError:
                raise
            except Exception as error:
                raise ValueError(f"{key}: {error}") from error
            arrays[key] = typed(array, key)
    return arrays


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of which the header is looked at before memory is asked for."""
    file: Any
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        if version != (1, 0):  # later ones are for records
            raise ValueError(f"it is of version {version}, expected (1, 0)")
        try:
            shape, is_fortran, dtype = npy.read_array_header_1_0(file)
        except MemoryError:  # the text of the header is nested too deeply for Python
            raise ValueError("its header cannot be read") from None
        if dtype.kind not in "fiubc" and dtype != BITS:
            raise ValueError(f"it is of dtype {dtype}, expected numbers")
        claimed, there = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
        if min(shape, default=0) < 0 or claimed != there:
            raise ValueError(f"its header claims shape {shape} of {dtype}, but there are {there} bytes")
        if there > 1100 * entry.compress_size + 1000:  # deflate packs at most 1032 bytes into one
            raise ValueError(f"it claims {there} bytes, more than its {entry.compress_size} packed ones can be")
        array = np.empty(shape, dtype, order="F" if is_fortran else "C")
        bytes_: Any = array.reshape(-1, order="A").view(np.uint8)
        filled = 0
        while filled < claimed:
            more = file.readinto(bytes_[filled:])
            if not more:
                raise ValueError(f"it ends after {filled} of {claimed} bytes")
            filled += more
        file.read(1)  # compares the checksum
    return array


def write_npz(file: IO[bytes], arrays: Arrays) -> None:
    """Writes what numpy.savez() does, which cannot have an array named "file"."""
    with zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            with archive.open(key + ".npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, array.view(BITS) if is_bfloat16(array) else array, allow_pickle=False)


def is_bfloat16(array: NDArray[Any]) -> bool:
    return array.dtype.itemsize == 2 and array.dtype.kind == "V" and code_of(array.dtype) is not None


def typed(array: NDArray[Any], key: str) -> NDArray[Any]:
    """Bits of bfloat16 as an array of its dtype."""
    return array.view(bfloat16(key)) if array.dtype == BITS else array
