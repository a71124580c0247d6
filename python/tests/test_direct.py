# SPDX-License-Identifier: Apache-2.0
"""Caches between calls, and the short way that most calls go, make no difference but in time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import BY_POINTER, LAYOUTS, pointer, spied

import batchnorm as bn
from batchnorm._core import direct
from batchnorm._core.arrays import address
from batchnorm._core.layout import dense_plan, plan
from batchnorm.functional.saved import two_of

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(4, 6, 6, 6)).astype("f4")


def reference(x: Array, axis: int = 1) -> Array:
    axes = tuple(a for a in range(x.ndim) if a != axis)
    wide = x.astype(float)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(wide.var(axis=axes, keepdims=True) + 1e-5)


def normalizes(x: Array, axis: int = 1) -> bool:
    y, saved = bn.forward_training(x, axis=axis)
    dx, _, dbeta = bn.backward(x, x, saved, axis=axis)
    total = x.astype(float).sum(axis=tuple(a for a in range(x.ndim) if a != axis))
    fine = np.allclose(y, reference(x, axis), rtol=0, atol=1e-5) and y.dtype == dx.dtype == x.dtype
    return fine and np.allclose(dbeta, total, rtol=1e-4, atol=1e-4)


@contextmanager
def no_long_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(*_: Any) -> Any:
        raise AssertionError("the long way was taken")

    with monkeypatch.context() as patch:
        patch.setattr(direct, "arrange", refused)
        yield


def test_plain_arrays_go_the_short_way(x: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = bn.BatchNorm(6)
    with no_long_way(monkeypatch):
        for out in (None, np.empty_like(x)):
            assert out is None or bn.forward_training(x, out=out)[0] is out
            _, saved = bn.forward_training(x, out=out)
            bn.forward_inference(x, None, None, running_mean=np.zeros(6, "f4"), running_var=np.ones(6, "f4"), out=out)
            bn.backward(x.copy(), x, saved, out=out)
            layer(x, out)
            layer.backward(x.copy(), out)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ["C", "channels last", "read-only", "misaligned", "every second sample"])
def test_layouts_of_one_shape_are_told_apart(x: Array, layout: str, other: str) -> None:
    """Both take turns, so that each finds what the other has left behind."""
    first, second = LAYOUTS[layout](x), LAYOUTS[other](x[::-1])
    for _ in range(2):
        assert normalizes(first)
        assert normalizes(second)
    for given, dy in ((first, second), (second, first)):
        _, saved = bn.forward_training(given)
        got = bn.backward(dy, given, saved)
        for array, exact in zip(got, bn.backward(dy.copy("C"), given.copy("C"), saved)):
            assert np.allclose(array, exact, rtol=0, atol=1e-3)


def test_axes_and_dtypes_of_one_shape_are_told_apart(x: Array) -> None:
    for _ in range(2):
        for axis in (1, 2, 3, 0):
            for dtype in ("f4", "f8"):
                assert normalizes(x.astype(dtype), axis)
        assert bn.forward_training(x, axis=(1, 2))[1].mean.shape == (6, 6)
        assert np.array_equal(bn.forward_training(x, axis=-1)[0], bn.forward_training(x, axis=3)[0])
        assert bn.forward_training(x, axis=np.int64(2))[1].mean.shape == (6,)
        for wrong in (1.0, "1", None):
            with pytest.raises(TypeError, match="expected an int or a tuple of int"):
                bn.forward_training(x, axis=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="axis 4 is out of range for an array of rank 4") as caught:
            bn.forward_training(x, axis=4)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("dtype", [">f4", ">f2", "i4", "u4", "c8", "M8[s]", "O", "f4,f4", "V4"])
def test_another_dtype_is_refused_before_and_after(x: Array, dtype: str) -> None:
    wrong = np.zeros(x.shape, dtype)
    _, saved = bn.forward_training(x)
    for _ in range(2):
        bn.forward_training(x)
        for call in (
            lambda: bn.forward_training(wrong),
            lambda: bn.forward_training(wrong, out=np.zeros(x.shape, dtype)),
            lambda: bn.forward_training(x, out=wrong),
            lambda: bn.backward(wrong, x, saved),
            lambda: bn.backward(x, wrong, saved),
            lambda: bn.forward_training(x, None, None, running_mean=np.zeros(6, dtype), running_var=np.ones(6, "f4")),
        ):
            with pytest.raises(TypeError, match="has dtype") as caught:
                call()
            assert caught.value.__context__ is None
        if np.dtype(dtype).kind not in "fiu":
            with pytest.raises(TypeError, match="gamma has dtype .*, expected real numbers"):
                bn.forward_training(x, np.zeros(6, dtype))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_array_whose_shape_or_dtype_was_changed_in_place(x: Array) -> None:
    assert normalizes(x)
    x.shape = 6, 4, 6, 6
    assert normalizes(x)
    x.shape = 24, 36
    assert normalizes(x)
    x.dtype = np.dtype(">f4")
    with pytest.raises(TypeError, match="expected the byte order of this machine"):
        bn.forward_training(x)
    x.dtype = np.dtype("f4")
    x.flags.writeable = False
    assert normalizes(x)
    out = np.empty_like(x)
    bn.forward_training(x, out=out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        bn.forward_training(x, out=out)
    with pytest.raises(ValueError, match="out is read-only"):
        bn.backward(x, x, bn.forward_training(x)[1], out=out)


class Named(np.ndarray):  # type: ignore[type-arg]
    """A subclass that would have its say wherever it is asked."""

    def __array_finalize__(self, other: Any) -> None:
        self.name = "of a subclass"


def test_subclasses_are_taken_for_what_they_hold(x: Array) -> None:
    gamma = np.arange(6, dtype="f4")
    expected, saved = bn.forward_training(x, gamma)
    gradient = bn.backward(x, x, saved, gamma=gamma)
    for _ in range(2):
        y, _ = bn.forward_training(x.view(Named), gamma.view(Named))
        assert type(y) is np.ndarray
        assert np.array_equal(y, expected)
        for got, exact in zip(bn.backward(x.view(Named), x.view(Named), saved, gamma=gamma.view(Named)), gradient):
            assert type(got) is np.ndarray
            assert np.array_equal(got, exact)
    masked = np.ma.array(x)
    for call in (lambda: bn.forward_training(masked), lambda: bn.backward(masked, x, saved)):
        with pytest.raises(TypeError, match="is a masked array"):
            call()
    out, mean = np.empty_like(x).view(Named), np.zeros(6, "f4").view(Named)
    y, _ = bn.forward_training(x, gamma, running_mean=mean, running_var=np.ones(6, "f4"), out=out)
    assert y is out
    assert np.array_equal(out, expected)
    assert mean.any()
    for masked in (np.ma.array(x), np.ma.zeros(6, "f4")):
        name = "out" if masked.ndim > 1 else "running_mean"
        given = {name: masked} if name == "out" else {name: masked, "running_var": np.ones(6, "f4")}
        with pytest.raises(TypeError, match=rf"{name} is of type MaskedArray, expected numpy\.ndarray"):
            bn.forward_training(x, **given)


@pytest.mark.parametrize("shape", [(6, 4, 6, 6), (4, 36, 6), (4, 6, 6, 6, 1)])
def test_as_many_elements_in_another_shape_are_refused(x: Array, shape: tuple[int, ...]) -> None:
    _, saved = bn.forward_training(x)
    other = np.empty(shape, "f4")
    with pytest.raises(ValueError, match="out has shape"):
        bn.forward_training(x, out=other)
    with pytest.raises(ValueError, match="out has shape"):
        bn.backward(x, x, saved, out=other)
    with pytest.raises(ValueError, match="dy has shape"):
        bn.backward(other, x, saved)


def test_axes_of_length_1_may_have_any_stride(x: Array) -> None:
    sliced = x[:, 2:3]
    buffer = np.lib.stride_tricks.as_strided(x, (24, 1, 36), (144, 4, 4))
    odd = np.lib.stride_tricks.as_strided(x, (24, 36, 1), (144, 4, 99))
    assert buffer.flags.c_contiguous
    assert odd.flags.c_contiguous
    for given in (sliced, buffer, odd):
        for axis in (0, 1, 2):
            if given.size > given.shape[axis]:
                assert np.allclose(bn.forward_training(given, axis=axis)[0], reference(given, axis), rtol=0, atol=1e-5)


def parameters() -> dict[str, Array]:
    return {name: np.ones(6, "f4") for name in ("gamma", "beta", "running_mean", "running_var")}


@pytest.mark.parametrize("name", parameters())
def test_parameters_are_checked_at_every_call(x: Array, name: str) -> None:
    wrong = {"has shape": np.ones(7, "f4")}
    if name.startswith("running"):
        wrong["has dtype float64"] = np.ones(6)
    for _ in range(2):
        bn.forward_training(x, **parameters())
        for message, array in wrong.items():
            with pytest.raises((TypeError, ValueError), match=f"{name} {message}") as caught:
                bn.forward_training(x, **{**parameters(), name: array})
            assert caught.value.__context__ is None
    read_only = np.ones(6, "f4")
    read_only.flags.writeable = False
    given = {**parameters(), name: read_only}
    bn.forward_inference(x, **given)
    if name.startswith("running"):
        with pytest.raises(ValueError, match=f"{name} is read-only, but it is updated in place"):
            bn.forward_training(x, **given)
    else:
        bn.forward_training(x, **given)


def test_a_dtype_that_the_library_has_not() -> None:
    """Saved statistics that know no dtype say nothing about it."""
    x = np.zeros((4, 3), np.int32)
    with pytest.raises(TypeError, match="x has dtype int32, expected float32, float64, float16 or bfloat16"):
        bn.backward(x, x, bn.frozen_statistics(np.zeros(3), np.ones(3)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_addresses(x: Array, layout: str) -> None:
    given = LAYOUTS[layout](x)
    assert address(given) == pointer(given) == given.ctypes.data


def test_no_reference_to_an_array_is_kept(x: Array) -> None:
    arrays = [x, np.empty_like(x), *parameters().values()]
    before = [sys.getrefcount(array) for array in arrays]
    for _ in range(3):
        names = "gamma", "beta", "running_mean", "running_var"
        bn.forward_training(x, **dict(zip(names, arrays[2:])), out=arrays[1])
        _, saved = bn.forward_training(x)
        bn.backward(arrays[1], x, saved, gamma=arrays[2])
    assert [sys.getrefcount(array) for array in arrays] == before
    arrays[1].resize(3, refcheck=False)
    with pytest.raises(ValueError, match="out has shape"):
        bn.forward_training(x, out=arrays[1])


def test_the_kept_structures_stay_as_they_are(x: Array) -> None:
    """Threads share them: what a call is given is what every other call of its kind was and will be given."""
    seen = []
    for layout in (*BY_POINTER, *BY_POINTER):
        with spied("bn_forward_training") as calls:
            bn.forward_training(BY_POINTER[layout](x))
        seen.append((calls[0][0], bytes(calls[0][0]), calls[0][10], bytes(calls[0][10])))
    for shape, shape_then, chosen, chosen_then in seen:
        assert (bytes(shape), bytes(chosen)) == (shape_then, chosen_then)
    half = len(seen) // 2
    assert all(a[0] is b[0] and a[2] is b[2] for a, b in zip(seen[:half], seen[half:]))


def test_one_shape_in_several_threads(rng: np.random.Generator) -> None:
    """Nothing is kept that belongs to one call: saved statistics, results or addresses."""
    batches = [rng.normal(n, 1, size=(4, 6, 5, 5)).astype("f4") for n in range(8)]
    expected = [bn.forward_training(batch) for batch in batches]
    gradients = [bn.backward(batch, batch, saved) for batch, (_, saved) in zip(batches, expected)]
    plan.cache_clear()
    dense_plan.cache_clear()
    two_of.cache_clear()

    def right(n: int) -> bool:
        batch, (y, saved) = batches[n % 8], expected[n % 8]
        got, got_saved = bn.forward_training(batch)
        gradient = bn.backward(batch, batch, got_saved)
        return all(
            np.array_equal(a, b) for a, b in zip((got, got_saved.mean, *gradient), (y, saved.mean, *gradients[n % 8]))
        )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(right, range(800)))
    finally:
        sys.setswitchinterval(interval)


def test_saved_statistics_are_views_of_one_memory(x: Array) -> None:
    _, saved = bn.forward_training(x, axis=(1, 2))
    assert pointer(saved.invstd) - pointer(saved.mean) == 8 * 36
    assert saved.channels == 36
    for name in ("mean", "invstd"):
        getattr(saved, name)[2, 3] = 7
        assert getattr(saved, name)[2, 3] == 7
        assert getattr(saved, name).flags.carray
    assert (saved.mean == 7).sum() == (saved.invstd == 7).sum() == 1


@pytest.mark.parametrize("channels", [2**40, 2**60])
def test_statistics_that_no_memory_holds(channels: int) -> None:
    with pytest.raises(MemoryError, match="no memory for the statistics"):
        bn.forward_training(np.zeros((0, channels), "f4"))


def test_what_is_kept_does_not_pile_up() -> None:
    for n in range(2, 700):
        bn.forward_training(np.zeros((2, n), "f4"))
    for cache in (dense_plan, plan, two_of):
        info = cache.cache_info()
        assert info.maxsize is not None
        assert 0 < info.currsize <= info.maxsize
    assert ctypes.sizeof(two_of((3, 4))) == 2 * 3 * 4 * 8
