# SPDX-License-Identifier: Apache-2.0
"""Moments of streams and of .npy files, as large as they may be."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bars import Terminal, stand_in
from counting import DTYPES, check, unchanged
from helpers import LAYOUTS, pointer, python, spied

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, 3, (1, 2), (2, 3)])
@pytest.mark.parametrize("chunk_bytes", [1, 100, 1000, 10**9])
def test_stream_of_any_layout(rng: np.random.Generator, chunk_bytes: int, axis: Any, layout: str) -> None:
    x = LAYOUTS[layout](rng.normal(size=(7, 3, 4, 5)) + 5)
    seen = bn.Moments.stream(x, axis, chunk_bytes=chunk_bytes)
    assert seen.axis == axis
    check(seen, x, axis if isinstance(axis, tuple) else (axis,))


def test_stream_of_little() -> None:
    for shape in ((0, 3), (1, 3), (1, 1), (1, 1, 1)):
        x = np.ones(shape)
        unchanged(bn.Moments.stream(x, chunk_bytes=1), list(bn.moments(x)))
    with pytest.raises(ValueError, match="channels"):
        bn.Moments.stream(np.ones((4, 0)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stream_reads_each_byte_once_and_in_order(rng: np.random.Generator, order: Any, axis: int) -> None:
    x = np.array(rng.normal(size=(11, 5, 6)), np.float32, order=order)
    index = x.nbytes // (x.shape[0] if order == "C" else x.shape[2])
    with spied("bn_moments") as calls:
        seen = bn.Moments.stream(x, axis, chunk_bytes=2 * index + 3)
    found = [(address, 4 * shape.outer * shape.channels * shape.inner) for shape, _, address, *_ in calls]
    assert len(found) == (6 if order == "C" else 3)
    assert found[0][0] == pointer(x)
    for (address, size), (after, _) in zip(found, found[1:]):
        assert size == 2 * index
        assert after == address + size
    assert sum(size for _, size in found) == x.nbytes
    check(seen, x, (axis,))
    with spied("bn_moments") as calls:
        check(bn.Moments.stream(x[::-1, :, ::-1], axis, chunk_bytes=2 * index + 3), x[::-1, :, ::-1], (axis,))
    assert len(calls) == len(found)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("order", ["C", "F"])
def test_stream_of_a_file(rng: np.random.Generator, tmp_path: Path, order: Any, dtype: Any) -> None:
    x = np.array(rng.normal(size=(11, 5, 6)) + 3, dtype, order=order)
    path = tmp_path / "x.npy"
    np.save(path, x)
    for given in (path, str(path), np.load(path, mmap_mode="r")):
        for axis in (0, 1, 2):
            check(bn.Moments.stream(given, axis, chunk_bytes=200), x, (axis,))
    if dtype == ml_dtypes.bfloat16:
        np.save(path, x.view(np.uint16))
        check(bn.Moments.stream(np.load(path, mmap_mode="r").view("V2"), chunk_bytes=200), x, (1,))
        with pytest.raises(TypeError, match=r"x\.npy has dtype uint16, expected float32"):
            bn.Moments.stream(path)


def header(shape: str, descr: str = "'<f4'", rest: bytes = b"") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest


def saved(array: Array, **told: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **told)
    return file.getvalue()


def zipped(array: Array) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


WHOLE = saved(np.ones((4, 3), np.float32))
HOSTILE = {
    "empty": b"",
    "text": b"count,mean\n1,2\n",
    "zeros": bytes(4096),
    "magic alone": b"\x93NUMPY",
    "unknown version": b"\x93NUMPY\x09\x00" + WHOLE[8:],
    "header cut off": WHOLE[:40],
    "data cut off": WHOLE[:-1],
    "no data": header("(4, 3)"),
    "claims petabytes": header("(1099511627776, 1024)", rest=bytes(64)),
    "size overflows": header("(4294967296, 4294967296)", rest=bytes(64)),
    "size overflows to little": header("(4611686018427387905, 4, 4)", rest=bytes(256)),
    "index overflows": header("(18446744073709551617,)", rest=bytes(64)),
    "negative length": header("(-4, 3)", rest=bytes(64)),
    "two negative lengths": header("(-4, -3)", rest=bytes(64)),
    "length is a text": header("('4', 3)", rest=bytes(64)),
    "length is a bool": header("(True, 3)", "'<i4'", rest=bytes(64)),
    "shape is an int": header("12", rest=bytes(64)),
    "brackets": header("(" * 3000 + ")" * 3000),
    "signs": header("-" * 9000 + "1"),
    "header is a call": header("__import__('os').getcwd()"),
    "unknown dtype": header("(4, 3)", "'<q9'", rest=bytes(64)),
    "no bytes per element": header("(4, 3)", "'|V0'", rest=bytes(64)),
    "objects": saved(np.array([[{}]]), allow_pickle=True),
    "archive": zipped(np.ones((4, 3))),
    "complex": saved(np.ones((4, 3), np.complex64)),
    "other byte order": saved(np.ones((4, 3), np.dtype(np.float32).newbyteorder())),
    "ints": saved(np.ones((4, 3), int)),
    "records": saved(np.ones(4, [("a", "f4")])),
    "times": saved(np.zeros((4, 3), "M8[s]")),
    "one number": saved(np.float32(1)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_are_no_arrays(tmp_path: Path, name: str) -> None:
    """The sentence tells the file, with NumPy's warnings and without, and no length is believed."""
    path = tmp_path / "hostile.npy"
    path.write_bytes(HOSTILE[name])
    with pytest.raises((ValueError, TypeError), match=r"hostile\.npy (is not a whole|has dtype|is a single)"):
        bn.Moments.stream(path)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        bn.Moments.stream(tmp_path / "absent.npy")
    with pytest.raises(IsADirectoryError):
        bn.Moments.stream(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """The process may have 64 MB, and the file has 1.5 GB (nearly all holes): a slice may be copied, but not more."""
    path, shape = tmp_path / "x.npy", (384, 16, 65536)
    x = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    x[5, 3, :] = 2
    x[-1, 15, -1] = 7
    del x
    code = """
import resource, sys
import numpy as np
import batchnorm as bn

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))

bn.Moments.stream(np.ones((4, 3), np.float32))
limit = status("VmData") + (64 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = status("RssAnon")
mapped = np.load(sys.argv[1], mmap_mode="r")
try:
    np.array(mapped[:48])
except MemoryError:
    print("limited")
for x in (sys.argv[1], mapped[:, :, ::2]):
    seen = bn.Moments.stream(x, chunk_bytes=16 << 20)
    assert status("RssAnon") - before < 48 << 20, status("RssAnon") - before
    print(seen.count[3], seen.mean[3] * seen.count[3], seen.mean[15] * seen.count[15], seen.mean[0])
"""
    done = python(code, str(path), BATCHNORM_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["limited"]
    assert np.allclose(np.array(lines[1], float), [384 * 65536, 2 * 65536, 7, 0], rtol=1e-14, atol=0)
    assert np.allclose(np.array(lines[2], float), [384 * 32768, 65536, 0, 0], rtol=1e-14, atol=0)


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    bars, x = stand_in(monkeypatch), np.arange(24.0).reshape(4, 3, 2)
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
        for progress in (True, False, None):
            bars.clear()
            seen = bn.Moments.stream(x, chunk_bytes=x.nbytes // 2, progress=progress)
            assert bars == ([(2, " slices")] if progress or (progress is None and terminal) else [])
            assert seen.count.tolist() == [8] * 3
    monkeypatch.setattr(sys, "stderr", None)
    bars.clear()
    bn.Moments.stream(x, progress=None)
    assert not bars


def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    x = np.ones((4, 3))
    with pytest.raises(ImportError, match=r"progress=True needs tqdm: pip install 'batchnorm\[progress\]'"):
        bn.Moments.stream(x, progress=True)
    assert bn.Moments.stream(x, progress=None).count.tolist() == [4] * 3
