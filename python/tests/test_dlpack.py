# SPDX-License-Identifier: Apache-2.0
"""Tensors that are known by DLPack alone: their memory is taken as it is, or they are refused with a reason."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from helpers import pointer

import batchnorm as bn
from batchnorm._core import dlpack, library
from batchnorm._core.arrays import Array
from batchnorm._core.foreign import view

CAPSULE = ctypes.pythonapi.PyCapsule_New
CAPSULE.restype, CAPSULE.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Foreign:
    """A tensor that shows an array's memory by DLPack; keywords change what the capsule says."""

    def __init__(self, array: Array, device: int = 1, old: bool = False, name: bytes = b"", **changes: Any) -> None:
        self.array, self.device, self.old, self.name, self.changes = array, device, old, name, changes

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **asked: Any) -> Any:
        if self.old and asked:
            raise TypeError("an old producer takes no max_version")
        held = dlpack.Versioned()
        tensor, array = held.tensor, self.array
        held.major, held.flags = self.changes.get("major", 1), self.changes.get("flags", 0)
        extents = array.shape, (stride // array.itemsize for stride in array.strides)
        self.kept = [(ctypes.c_int64 * (array.ndim + 1))(*each) for each in extents]  # for as long as this object
        tensor.data, tensor.rank, tensor.device = array.ctypes.data, array.ndim, self.device
        tensor.code, tensor.bits, tensor.lanes = 2, 8 * array.itemsize, 1
        tensor.shape, tensor.strides = (ctypes.cast(each, type(tensor.shape)) for each in self.kept)
        for name, value in self.changes.items():
            if name in ("code", "bits", "lanes", "shape", "strides", "offset", "data"):
                setattr(tensor, name, value)
        self.kept.append(held)
        name = self.name or (b"dltensor" if self.old else b"dltensor_versioned")
        place = ctypes.addressof(tensor) if self.old else ctypes.addressof(held)
        return CAPSULE(place, _named(name), None)


_NAMES: dict[bytes, Any] = {}


def _named(name: bytes) -> Any:
    """A capsule keeps the pointer to its name."""
    return _NAMES.setdefault(name, ctypes.create_string_buffer(name))


LAYOUTS: dict[str, Any] = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "channels last": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).swapaxes(1, -1)[..., :, :],
    "slices": lambda x: np.concatenate([x, x], axis=1)[:, : x.shape[1]],
    "backwards": lambda x: x[::-1],
}


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(4, 3, 5)).astype("f4")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_is_taken_as_it_is(x: Array, layout: str, old: bool) -> None:
    array = LAYOUTS[layout](x)
    found = view(Foreign(array, old=old), "x")
    assert (pointer(found), found.shape, found.dtype) == (pointer(array), array.shape, array.dtype)
    assert found.strides == array.strides
    assert found.flags.writeable is not old
    assert np.array_equal(found, array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_is_that_of_the_array(x: Array, layout: str) -> None:
    array = LAYOUTS[layout](x)
    running = np.zeros(3, "f4"), np.ones(3, "f4")
    expected, known = bn.forward_training(array, running_mean=running[0], running_var=running[1])
    others, out = (np.zeros(3, "f4"), np.ones(3, "f4")), np.empty_like(expected)
    given = Foreign(array)
    y, saved = bn.forward_training(
        given, running_mean=Foreign(others[0]), running_var=Foreign(others[1]), out=(taken := Foreign(out))
    )
    assert y is taken
    assert np.array_equal(out, expected)
    assert np.array_equal(others, running)
    assert np.array_equal(saved.mean, known.mean)
    gradients = bn.backward(Foreign(expected), given, saved)
    assert all(np.array_equal(*pair) for pair in zip(gradients, bn.backward(expected, array, known)))


@pytest.mark.parametrize("dtype", ["f4", "?"])
def test_weights_are_kept_as_they_were(x: Array, dtype: str) -> None:
    weights = np.ones((4, 1, 1), dtype)
    _, known = bn.forward_training(x, weights=weights.copy())
    _, saved = bn.forward_training(x, weights=Foreign(weights, code=6 if dtype == "?" else 2))
    weights[1:] = 0
    assert all(np.array_equal(*pair) for pair in zip(bn.backward(x, x, saved), bn.backward(x, x, known)))


def test_types_of_elements(x: Array) -> None:
    for code, bits, dtype in ((2, 16, "f2"), (2, 64, "f8"), (0, 8, "i1"), (1, 16, "u2"), (6, 8, "?"), (5, 64, "c8")):
        array = np.zeros((2, 2), dtype)
        assert view(Foreign(array, code=code, bits=bits), "x").dtype == array.dtype
    halves = np.zeros((2, 2), "u2")
    assert view(Foreign(halves, code=4, bits=16), "x").dtype.itemsize == 2
    y, _ = bn.forward_training(Foreign(np.full((2, 1), 0x3F80, "u2"), code=4, bits=16))
    assert np.asarray(y).view("u2").tolist() == [[0], [0]]
    for wrong in ({"lanes": 2}, {"bits": 12}, {"code": 3}, {"code": 4, "bits": 32}, {"code": 99}, {"bits": 0}):
        with pytest.raises(TypeError, match=r"x has elements of \d+ x \d+ bits of DLPack's type \d+"):
            bn.moments(Foreign(x, **wrong))
    with pytest.raises(TypeError, match="x has dtype int32"):
        bn.moments(Foreign(np.zeros((2, 2), "i4"), code=0))


def test_no_strides_are_those_of_a_dense_tensor(x: Array) -> None:
    absent = ctypes.POINTER(ctypes.c_int64)()
    assert np.array_equal(view(Foreign(x, strides=absent), "x"), x)


def test_an_offset_is_counted_in_bytes(x: Array) -> None:
    assert np.array_equal(view(Foreign(x[:-1], offset=x.strides[0]), "x"), x[1:])


def test_empty_tensors() -> None:
    empty = np.empty((0, 3), "f4")
    for changes in ({}, {"data": None}):
        y, _ = bn.forward_training(Foreign(empty, **changes))
        assert np.asarray(y).shape == (0, 3)


def test_capsules_that_lie(x: Array) -> None:
    class Lying(Foreign):
        def __dlpack_device__(self) -> tuple[int, int]:
            raise KeyError("no device")

    nowhere = Foreign(x, shape=ctypes.POINTER(ctypes.c_int64)())
    for tensor in (Lying(x, device=2), nowhere):
        with pytest.raises(TypeError, match=r"whose capsule is of no tensor in memory of the CPU"):
            bn.moments(tensor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": 2}, "x is on a device of CUDA, expected memory of the CPU: copy it there first"),
        ({"device": 77}, "x is on a device of type 77, expected memory of the CPU"),
        ({"name": b"used_dltensor_versioned"}, "no capsule of a tensor, or one that was used"),
        ({"name": b"used_dltensor", "old": True}, "no capsule of a tensor, or one that was used"),
        ({"name": b"other"}, "no capsule of a tensor, or one that was used"),
        ({"major": 2}, r"DLPack 2\.0 is not known"),
    ],
)
def test_tensors_that_are_refused(x: Array, changes: Any, message: str) -> None:
    for call in (bn.forward_training, bn.moments, bn.BatchNorm1d(3)):
        with pytest.raises(TypeError, match=message):
            call(Foreign(x, **changes))


def test_whoever_gives_no_capsule(x: Array) -> None:
    class Failing(Foreign):
        def __dlpack__(self, **asked: Any) -> Any:
            raise BufferError("not today")

    class Strange(Foreign):
        def __dlpack__(self, **asked: Any) -> Any:
            return x

    with pytest.raises(TypeError, match=r"Failing, whose memory it does not give: not today"):
        bn.moments(Failing(x))
    with pytest.raises(TypeError, match="no capsule of a tensor"):
        bn.moments(Strange(x))


@pytest.mark.parametrize("changes", [{"flags": 1}, {"old": True}])
def test_nothing_is_written_where_it_may_not_be(x: Array, changes: Any) -> None:
    kept = x.copy()
    running = np.zeros(3, "f4"), np.ones(3, "f4")
    for told in (
        {"out": Foreign(x, **changes)},
        {"running_mean": Foreign(running[0], **changes), "running_var": running[1]},
        {"running_mean": running[0], "running_var": Foreign(running[1], **changes)},
    ):
        with pytest.raises(TypeError, match=r"(out|running_mean|running_var) is of type .*Foreign, which cannot be"):
            bn.forward_training(x, **told)
    assert np.array_equal(x, kept)
    assert (running[0].tolist(), running[1].tolist()) == ([0] * 3, [1] * 3)
    bn.forward_inference(x, running_mean=Foreign(running[0], **changes), running_var=Foreign(running[1], **changes))


def test_views_of_running_statistics_live_as_long_as_a_call(x: Array) -> None:
    """A capsule may be all that keeps its memory."""
    alive: list[Any] = []

    class Watched(Foreign):
        def __dlpack__(self, **asked: Any) -> Any:
            capsule = super().__dlpack__(**asked)
            alive.append(capsule)
            return capsule

    mean, var = np.zeros(3), np.ones(3)
    real = library.lib.bn_update_running
    counts: list[int] = []

    def spy(*arguments: Any) -> Any:
        counts.extend([sys.getrefcount(each) for each in alive])
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.lib, "bn_update_running", spy)
        bn.update_running(Watched(mean), Watched(var), *bn.moments(x), momentum=1.0)
    assert np.allclose(mean, x.mean(axis=(0, 2)))
    assert counts == [sys.getrefcount(each) + 1 for each in alive]


def test_a_view_keeps_its_tensor(x: Array) -> None:
    tensor = Foreign(x.copy())
    alive = weakref.ref(tensor)
    layer = bn.BatchNorm1d(3)
    layer(tensor)
    del tensor
    gc.collect()
    assert alive() is not None  # the layer's backward pass reads x
    expected = bn.BatchNorm1d(3)
    expected(x)
    assert np.array_equal(layer.backward(x), expected.backward(x))
    del layer
    gc.collect()
    assert alive() is None


class InNamespace(Foreign):
    """One whose package can make tensors of arrays."""

    def __array_namespace__(self, api_version: Any = None) -> Any:
        return InNamespace

    @staticmethod
    def asarray(array: Array) -> InNamespace:
        return InNamespace(array)


def test_results_are_of_the_kind_of_x(x: Array) -> None:
    given = InNamespace(x)
    y, saved = bn.forward_training(given, activation="relu")
    results = [y, bn.forward_training(given)[0], *bn.backward(given, x, saved), bn.BatchNorm1d(3)(given)]
    results += [bn.normalize(given, saved.mean, saved.invstd), bn.jvp(given, bn.forward_training(x)[1], x_tangent=x)]
    results += [bn.forward_inference(given, running_mean=np.zeros(3), running_var=np.ones(3))]
    results += bn.double_backward(given, x, bn.forward_training(x)[1], grad_dx=x)
    layer = bn.BatchNorm1d(3, activation="relu")
    results += [layer(given), layer.backward(given), bn.batch_norm(given, None, None, training=True)]
    assert [type(each) for each in results] == [InNamespace] * len(results)
    expected, _ = bn.forward_training(x, activation="relu")
    assert np.array_equal(y.array, expected)
    assert {type(each) for each in (saved.mean, saved.invstd, layer.grad_gamma, layer.grad_beta)} == {np.ndarray}


def test_memory_views_as_outputs(x: Array) -> None:
    out, mean, var = np.empty_like(x), np.zeros(3, "f4"), np.ones(3, "f4")
    expected, _ = bn.forward_training(x)
    running = {"running_mean": memoryview(mean), "running_var": memoryview(var)}
    given: Any = memoryview(out)
    y, _ = bn.forward_training(x, out=given, **running)
    assert y is given
    assert np.array_equal(out, expected)
    assert mean.all()
    with pytest.raises(ValueError, match="out is read-only"):
        bn.forward_training(x, out=given.toreadonly())
