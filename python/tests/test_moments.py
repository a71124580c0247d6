# SPDX-License-Identifier: Apache-2.0
"""Moments of values that come in parts are those of all of them, and a file need not fit into memory."""

from __future__ import annotations

import copy
import io
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference
from bars import Terminal, stand_in
from helpers import LAYOUTS, pointer, python, spied

import batchnorm as bn

Array = np.ndarray[Any, Any]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def check(found: bn.Moments, x: Array, axes: tuple[int, ...], w: Array | None = None) -> None:
    """Against the sums of the definition, in the longest floats. `w` is of x's shape."""
    x, over = x.astype(reference.Real), tuple(a for a in range(x.ndim) if a not in axes)
    w = np.ones(x.shape, reference.Real) if w is None else w.astype(reference.Real)
    count = w.sum(over)
    mean = (w * x).sum(over) / count
    m2 = (w * (x - np.expand_dims(mean, over)) ** 2).sum(over)
    assert found.count.dtype == found.mean.dtype == found.m2.dtype == np.float64
    assert found.count.shape == found.mean.shape == found.m2.shape == count.shape
    most = max(float(abs(x).max()), 1e-300)
    assert np.allclose(found.count.astype(float), count.astype(float), rtol=1e-14, atol=0)
    assert (abs(found.mean - mean) <= 8 * 2.0**-53 * most).all()
    # Each merge rounds the squared difference of two means.
    assert (abs(found.m2 - m2) <= 64 * 2.0**-53 * (m2 + most * np.sqrt(m2 * count))).all()


def unchanged(seen: bn.Moments, before: list[Array]) -> None:
    for now, old in zip(seen, before):
        assert np.array_equal(now, old)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_any_size_and_layout(rng: np.random.Generator, layout: str, dtype: Any) -> None:
    x = (rng.normal(size=(9, 3, 4, 5)) + np.arange(9).reshape(-1, 1, 1, 1)).astype(dtype)
    seen = bn.Moments()
    for a, b in ((0, 1), (1, 1), (1, 6), (6, 9)):
        assert seen.update(LAYOUTS[layout](x[a:b]) if a < b else x[a:b]) is seen
    check(seen, x, (1,))


@pytest.mark.parametrize("case", range(20))
def test_variance_is_of_all_values(rng: np.random.Generator, case: int) -> None:
    """Of parts whose means differ by far more, or far less, than what is in them varies; in any order."""
    channels, between, offset = int(rng.integers(1, 6)), 10 ** rng.uniform(-3, 4), rng.choice([0, 1e5])
    sizes = rng.integers(0, 12, size=int(rng.integers(1, 9))) + (np.arange(1) == 0)
    weighted = bool(rng.random() < 0.5)
    print(f"channels {channels}, between {between}, offset {offset}, sizes {sizes}, weighted {weighted}")
    parts = [rng.normal(size=(n, channels, 3)) + between * rng.normal(size=channels)[:, None] + offset for n in sizes]
    weights = [rng.integers(0, 3, size=(n, 3)) + 0.25 if weighted else np.ones((n, 3)) for n in sizes]
    x, w = np.concatenate(parts), np.repeat(np.concatenate(weights)[:, None], channels, axis=1)
    by_update, by_merge = bn.Moments(), bn.Moments(num_features=channels)
    for part, own in zip(parts, weights):
        by_update.update(part, own if weighted else None)
    for i in rng.permutation(len(parts)):
        assert by_merge.merge(bn.moments(parts[i], weights=weights[i])) is by_merge
    check(by_update, x, (1,), w)
    check(by_merge, x, (1,), w)
    check(bn.merge_moments([bn.moments(p, weights=o) for p, o in zip(parts, weights)]), x, (1,), w)


@pytest.mark.parametrize("axis", [0, -1, (1, 2), (0, 1, 2, 3)])
def test_any_channel_axes(rng: np.random.Generator, axis: Any) -> None:
    x = rng.normal(size=(4, 3, 2, 5))
    axes = tuple(a % 4 for a in (axis if isinstance(axis, tuple) else (axis,)))
    shape = tuple(x.shape[a] for a in axes)
    seen = bn.Moments(axis, shape if isinstance(axis, tuple) else shape[0]).update(x).update(x + 1)
    check(seen, np.stack([x, x + 1]), tuple(a + 1 for a in axes))
    assert seen.var().shape == seen.std(True).shape == seen.invstd().shape == shape


def test_weights_and_lengths(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 6)).astype(np.float32)
    mask = np.arange(6) < np.array([[6], [2], [0], [4]])
    by_lengths = bn.Moments().update(x, lengths=[6, 2, 0, 4])
    check(by_lengths, x, (1,), np.repeat(mask[:, None], 3, axis=1))
    unchanged(bn.Moments().update(x, mask), list(by_lengths))


def test_unbiased_weights_are_frequencies() -> None:
    x = np.array([[1.0], [4.0], [7.0]])
    seen = bn.Moments().update(x, [2, 0, 3])
    assert np.allclose(seen.var(unbiased=True), np.var([1, 1, 7, 7, 7], ddof=1), rtol=1e-15)


def test_three_arrays(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3))
    seen = bn.Moments().update(x)
    count, mean, m2 = seen
    assert len(seen) == 3
    assert seen[0] is count is seen.count
    assert seen[-1] is m2 is seen.m2
    assert seen[1:] == (mean, m2)
    for stacked in (np.stack(seen), np.array(seen), np.asarray([seen])[0]):
        assert stacked.dtype == np.float64
        assert np.array_equal(stacked, [count, mean, m2])
    merged = bn.merge_moments([seen, (count, mean, m2), [[0.0] * 3] * 3, bn.Moments()])
    assert np.array_equal(merged.count, [12] * 3)
    assert np.allclose(merged.var(), x.var(axis=0), rtol=1e-14)
    assert bn.merge_moments(iter([bn.Moments((1, 2), (3, 1))])).axis == (1, 2)
    for other in (seen, (count, mean, m2), np.stack(seen), iter(seen)):
        unchanged(bn.Moments().merge(other), [count, mean, m2])


def test_what_was_handed_out_stays(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3))
    seen = bn.Moments().update(x)
    other = bn.Moments().merge(seen)
    copies = [copy.copy(seen), copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))]
    count, mean, m2 = seen
    before = [a.copy() for a in seen]
    seen.update(x + 1).merge(seen)
    assert seen.count.tolist() == [24] * 3
    for now, old in zip((count, mean, m2), before):
        assert np.array_equal(now, old)
    given = [np.array(a) for a in before]
    made = bn.Moments.of(*given)
    for array in (*other, *given):
        array[...] = 99
    for same in (*copies, made):
        assert type(same) is bn.Moments
        unchanged(same, before)
        unchanged(same.update(x + 1).merge(same), list(seen))


def test_nothing_yet(rng: np.random.Generator) -> None:
    seen = bn.Moments((1, 2))
    for read in (
        lambda: seen.count,
        lambda: seen.mean,
        lambda: seen.m2,
        lambda: seen[0],
        lambda: tuple(seen),
        lambda: np.stack(seen),
        seen.var,
        seen.std,
        seen.invstd,
    ):
        with pytest.raises(RuntimeError, match="number of channels is not known before update"):
            read()
    assert repr(pickle.loads(pickle.dumps(seen))) == "Moments(channels=None, values=0)"
    assert seen.merge(bn.Moments()) is seen
    with pytest.raises(ValueError, match="parts is empty"):
        bn.merge_moments([seen])
    assert repr(seen.update(rng.normal(size=(5, 3, 2)))) == "Moments(channels=(3, 2), values=5)"
    known = bn.Moments(num_features=2)
    assert np.stack(known).tolist() == [[0, 0]] * 3
    assert repr(known) == "Moments(channels=2, values=0)"
    assert repr(bn.Moments.of([1, 2.5], [0, 0], [0, 0])) == "Moments(channels=2, values=1 to 2.5)"
    assert np.stack(bn.Moments(num_features=3).update(np.empty((0, 3)))).tolist() == [[0] * 3] * 3


def test_variance_of_too_few_values() -> None:
    """NaN and no warning, whatever NumPy is told to do about such things."""
    seen = bn.Moments.of([0, 0.5, 1, 2, 3, 4], [0] * 6, [0, 1, 0, 8, np.nan, np.inf])
    with np.errstate(all="raise"):
        assert np.array_equal(seen.var(), [np.nan, 2, 0, 4, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.var(True), [np.nan, np.nan, np.nan, 8, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.std(), [np.nan, math.sqrt(2), 0, 2, np.nan, np.inf], equal_nan=True)
        assert np.array_equal(seen.std(True), np.sqrt(seen.var(True)), equal_nan=True)
        assert bn.Moments.of([1e-200], [0], [1e200]).var().tolist() == [np.inf]
    assert np.array_equal(seen.invstd(0.25)[:4], [2, 1 / 1.5, 2, 1 / math.sqrt(4.25)])
    assert np.array_equal(seen.invstd(0), bn.inverse_std(seen.count, seen.m2, 0), equal_nan=True)
    with pytest.raises(ValueError, match="eps"):
        seen.invstd(-1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.update(np.zeros((4, 2))),
            ValueError,
            r"x has channels of shape \(2,\) at axis 1, expected \(3,\)",
        ),
        (lambda m: m.update(np.zeros((0, 2))), ValueError, r"x has channels of shape \(2,\)"),
        (lambda m: m.update(np.zeros(3)), ValueError, "axis 1 is out of range"),
        (lambda m: m.update(np.zeros((4, 3), int)), TypeError, "x has dtype int64"),
        (lambda m: m.update(np.zeros((4, 3)), np.ones(3)), ValueError, r"weights have shape \(3,\), expected \(4,\)"),
        (lambda m: m.update(np.zeros((4, 3)), -np.ones(4)), ValueError, "weights have a value -1"),
        (lambda m: m.update(np.zeros((4, 3)), lengths=[1] * 4), ValueError, "lengths count along .* none in x"),
        (
            lambda m: m.merge(bn.Moments(num_features=4)),
            ValueError,
            r"other has channels of shape \(4,\), expected \(3",
        ),
        (lambda m: m.merge(([1.0], [1.0], [1.0])), ValueError, r"other has channels of shape \(1,\)"),
        (lambda m: m.merge(([1.0] * 3, [1.0] * 3)), ValueError, "other is of 2 parts, expected count, mean and m2"),
        (lambda m: m.merge(([-1.0] * 3, [1.0] * 3, [1.0] * 3)), ValueError, "count has a value -1"),
        (lambda m: m.merge(5), TypeError, "other is of type int, expected Moments"),
    ],
)
def test_an_error_changes_nothing(call: Any, error: type[Exception], message: str) -> None:
    seen = bn.Moments().update(np.arange(12.0).reshape(4, 3))
    before = [a.copy() for a in seen]
    with pytest.raises(error, match=message):
        call(seen)
    unchanged(seen, before)


def test_an_error_teaches_no_channels() -> None:
    seen = bn.Moments()
    with pytest.raises(ValueError, match="weights have shape"):
        seen.update(np.zeros((4, 3)), np.ones(3))
    assert repr(seen.update(np.zeros((4, 2)))) == "Moments(channels=2, values=4)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bn.Moments(1.5), TypeError, "axis is 1.5, expected an int"),
        (lambda: bn.Moments(num_features=0), ValueError, "num_features is 0, expected at least 1"),
        (
            lambda: bn.Moments(num_features=(2, 3)),
            ValueError,
            r"num_features is \(2, 3\) and axis is 1, expected as many",
        ),
        (lambda: bn.Moments((1, 2), 4), ValueError, r"num_features is 4 and axis is \(1, 2\)"),
        (lambda: bn.Moments(num_features=2.5), TypeError, "num_features is 2.5, expected an int"),
        (lambda: bn.Moments.of(1, 2, 3), ValueError, r"mean has shape \(\), expected one element per channel"),
        (lambda: bn.Moments.of([], [], []), ValueError, r"mean has shape \(0,\)"),
        (lambda: bn.Moments.of([1, 2], [1], [1]), ValueError, r"count has shape \(2,\), expected \(1,\)"),
        (lambda: bn.Moments.of([1], [1], [1, 2]), ValueError, r"m2 has shape \(2,\), expected \(1,\)"),
        (lambda: bn.Moments.of([1], [1j], [1]), TypeError, "mean has dtype complex128"),
        (lambda: bn.Moments.of([3, -1], [1, 1], [1, 1]), ValueError, "count has a value -1, expected finite numbers"),
        (lambda: bn.Moments.of([math.inf], [1], [1]), ValueError, "count has a value inf"),
        (lambda: bn.Moments.of([math.nan], [1], [1]), ValueError, "count has a value nan"),
        (
            lambda: bn.Moments.of([1], [1], [-0.5]),
            ValueError,
            "m2 has a value -0.5, expected numbers of at least 0, or",
        ),
        (lambda: bn.Moments.of([1], [1], [1], 1.5), TypeError, "axis is 1.5"),
        (
            lambda: bn.Moments.stream(np.ones((4, 3)), chunk_bytes=0),
            ValueError,
            "chunk_bytes is 0, expected at least 1",
        ),
        (lambda: bn.Moments.stream(np.ones((4, 3)), chunk_bytes=1e6), TypeError, "chunk_bytes is 1000000.0"),
        (lambda: bn.Moments.stream(np.ones((4, 3)), 2), ValueError, "axis 2 is out of range"),
        (
            lambda: bn.Moments.stream(np.ones((4, 3)), progress=1),
            TypeError,
            "progress is 1, expected True, False or None",
        ),
        (lambda: bn.Moments.stream(np.float64(1)), ValueError, "x is a single number"),
        (lambda: bn.Moments.stream(np.ma.ones((4, 3))), TypeError, "x is a masked array"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


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
    """Where 64 MB of memory can be had, of a file of 1.5 GB (nearly all holes) a slice may be copied, but not more."""
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
