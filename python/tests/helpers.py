# SPDX-License-Identifier: Apache-2.0
"""Arrays in every layout, Python in a process of its own, and the calls that reach the library."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from batchnorm._core import built_ins, library

PACKAGE = Path(library.__file__).resolve().parents[1]
REPOSITORY = Path(__file__).resolve().parents[2]

Array = np.ndarray[Any, Any]


def both(statistics: Any) -> dict[str, Any]:
    """Running mean and variance by name."""
    running_mean, running_var = statistics
    return {"running_mean": running_mean, "running_var": running_var}


def _in_larger(x: Array, shape: tuple[int, ...], index: Any) -> Array:
    """x as the part `index` of an array of `shape`, whose other elements are NaN."""
    larger = np.full(shape, np.nan, x.dtype)
    larger[index] = x
    return larger[index]


def _misaligned(x: Array) -> Array:
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned or not x.size
    return view


def _in_packed_records(x: Array) -> Array:
    """Each sample beside a byte of its own, so that samples are no whole number of elements apart."""
    records = np.zeros(len(x), [("sample", x.dtype, x.shape[1:]), ("byte", "u1")])
    records["sample"] = x
    return records["sample"]


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


# For x of shape (N, C, ...): an array of the same values that goes to the library by pointer ...
BY_POINTER: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: x.copy(),
    "Fortran": lambda x: x.copy(order="F"),
    "channels last": lambda x: np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1),
    "channels first": lambda x: np.moveaxis(np.moveaxis(x, 1, 0).copy(), 0, 1),
    "samples last": lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),
    "every second sample": lambda x: _in_larger(x, (2 * len(x), *x.shape[1:]), np.s_[::2]),
    "first channels": lambda x: _in_larger(x, (len(x), x.shape[1] + 3, *x.shape[2:]), np.s_[:, : x.shape[1]]),
    "first of the channels last": lambda x: np.moveaxis(
        _in_larger(np.moveaxis(x, 1, -1), (len(x), *x.shape[2:], x.shape[1] + 3), np.s_[..., : x.shape[1]]), -1, 1
    ),
    "read-only": _read_only,
}
# ... and one that is copied.
COPIED: dict[str, Callable[[Array], Array]] = {
    "every second channel": lambda x: _in_larger(x, (len(x), 2 * x.shape[1], *x.shape[2:]), np.s_[:, ::2]),
    "every second of the last": lambda x: _in_larger(x, (*x.shape[:-1], 2 * x.shape[-1]), np.s_[..., ::2]),
    "backwards": lambda x: x[::-1].copy()[::-1],
    "last backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "misaligned": _misaligned,
    "misaligned, channels last": lambda x: np.moveaxis(_misaligned(np.moveaxis(x, 1, -1)), -1, 1),
    "every second of the channels last": lambda x: np.moveaxis(
        _in_larger(np.moveaxis(x, 1, -1), (len(x), *x.shape[2:], 2 * x.shape[1]), np.s_[..., ::2]), -1, 1
    ),
    "backwards, Fortran": lambda x: x[::-1].copy(order="F")[::-1],
    "samples in packed records": _in_packed_records,
    "one field of a record": lambda x: np.rec.fromarrays([np.zeros(x.shape, "i1"), x])["f1"],
}
LAYOUTS = {**BY_POINTER, **COPIED}


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a Python of its own, which finds this package and this library."""
    names = "BATCHNORM_ISA", "BATCHNORM_NUM_THREADS", "OMP_NUM_THREADS"
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    inherited["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), str(Path(__file__).parent)])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def spied(name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of the library's function `name` by ctypes, which takes all of them meanwhile."""
    calls: list[tuple[Any, ...]] = []
    function = getattr(library.lib, name)

    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    setattr(library.lib, name, spy)
    try:
        with without_built_ins():
            yield calls
    finally:
        setattr(library.lib, name, function)


@contextmanager
def without_built_ins() -> Iterator[None]:
    """Every call goes the long way, as it does in an interpreter of another kind than CPython."""
    kept = {name: getattr(built_ins, name) for name in ("forward_training", "forward_inference", "backward")}
    vars(built_ins).update(dict.fromkeys(kept))
    try:
        yield
    finally:
        vars(built_ins).update(kept)


def digest(arrays: Iterable[Array]) -> str:
    """A digest of all bits. All NaNs count as one, because the processor chooses their signs and payloads."""
    result = hashlib.sha256()
    for array in arrays:
        if array.dtype.kind not in "iu":
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
        result.update(array.tobytes())
    return result.hexdigest()


def pointer(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
