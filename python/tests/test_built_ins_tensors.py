# SPDX-License-Identifier: Apache-2.0
"""Built-in functions with tensors that are described to C, by a package that is made up here; and without memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Callable

import numpy as np
import pytest
from test_built_ins import arrays, calls, pytestmark, refused

from batchnorm._core import built_ins, dlpack
from batchnorm._core.arrays import Array
from batchnorm._core.records import unpacked

__all__ = ["pytestmark"]

CODES = {"f": 2, "V": 4}


class Tensor:
    """An array's memory; keywords change what is said of it."""

    def __init__(self, array: Array, **changes: Any) -> None:
        self.array, self.changes = array, changes
        extents = array.shape, (stride // array.itemsize for stride in array.strides)
        self.extents = [(ctypes.c_int64 * (array.ndim + 1))(*each) for each in extents]


class Broken(Tensor):
    """One that nobody can describe."""


def describe(address: int, place: int) -> int:
    tensor = ctypes.cast(address, ctypes.py_object).value
    if type(tensor) is Broken:
        return -1
    array, told = tensor.array, dlpack.Tensor.from_address(place)
    told.data, told.rank, told.device, told.offset = array.ctypes.data, array.ndim, dlpack.CPU, 0
    told.code, told.bits, told.lanes = CODES.get(array.dtype.kind, 0), 8 * array.itemsize, 1
    told.shape, told.strides = (ctypes.cast(each, type(told.shape)) for each in tensor.extents)
    for name, value in tensor.changes.items():
        setattr(told, name, value)
    return 0


@pytest.fixture(autouse=True)
def _package() -> Iterator[None]:
    """Tensor and Broken take the places of PyTorch's types."""
    told = built_ins._interpreter
    assert told is not None
    kept = told.tensors[0], told.tensors[1], told.open_tensor
    # The global lock is held, as by PyTorch's own function.
    function = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(describe)
    told.tensors[0], told.tensors[1] = id(Tensor), id(Broken)
    told.open_tensor = ctypes.cast(function, ctypes.c_void_p).value
    yield
    told.tensors[0], told.tensors[1], told.open_tensor = kept


@pytest.mark.parametrize("which", range(3))
def test_tensors_give_what_arrays_give(rng: np.random.Generator, which: int) -> None:
    function, arguments, of_arrays = calls(rng)[which]
    copies = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
    record = function(*[Tensor(each) if place in of_arrays else each for place, each in enumerate(copies)])
    assert record == function(*arguments)
    for found, expected in zip(copies, arguments):
        assert not isinstance(found, np.ndarray) or found.tobytes() == expected.tobytes()


def nothing(array: Array) -> Any:
    return Tensor(array, data=None)


WRONG: dict[str, Callable[[Array], Any]] = {
    "nobody describes it": Broken,
    "another device": lambda x: Tensor(x, device=2),
    "lanes": lambda x: Tensor(x, lanes=2),
    "integers": lambda x: Tensor(x, code=0),
    "complex numbers": lambda x: Tensor(x, code=5),
    "bits": lambda x: Tensor(x, bits=8),
    "16 bits": lambda x: Tensor(x, bits=16),
    "bfloat16": lambda x: Tensor(x, code=4, bits=16),
    "float64": lambda x: Tensor(x, bits=64),
    "no shape": lambda x: Tensor(x, shape=None),
    "memory that was freed": nothing,
    "no axes": lambda x: Tensor(x, rank=0),
    "an axis more": lambda x: Tensor(x[..., None]),
    "backwards": lambda x: Tensor(x[::-1]),
    "every other": lambda x: Tensor(np.repeat(x, 2, axis=-1)[..., ::2]),
}


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("name", WRONG)
def test_descriptions_that_are_wrong(rng: np.random.Generator, which: int, name: str) -> None:
    function, arguments, of_arrays = calls(rng)[which]
    given = [Tensor(each) if place in of_arrays else each for place, each in enumerate(arguments)]
    for place in of_arrays:
        wrong = WRONG[name](arguments[place])
        kept = [arguments[place].copy() for place in of_arrays]
        assert function(*given[:place], wrong, *given[place + 1 :]) is None, place
        assert all(np.array_equal(each, arguments[place]) for each, place in zip(kept, of_arrays))


def test_a_tensor_without_strides_is_dense_and_may_begin_later(rng: np.random.Generator) -> None:
    (function, arguments, _), *_ = calls(rng)
    x, y = arguments[0], np.empty_like(arguments[0])
    behind = np.concatenate([np.full(5, np.nan, x.dtype), x.reshape(-1)])
    given = Tensor(x, data=behind.ctypes.data, offset=5 * x.itemsize, strides=None)
    nones = [None] * 4
    assert function(given, *nones, Tensor(y), *arguments[6:]) == function(x, *nones, arguments[5], *arguments[6:])
    assert np.array_equal(y, arguments[5])


def test_tensors_beside_an_array(rng: np.random.Generator) -> None:
    """Their memory may be anything to NumPy's users, whose x says that results are arrays."""
    (function, arguments, of_arrays), *_ = calls(rng)
    for place in set(of_arrays) - {0}:
        assert refused(function, [*arguments[:place], Tensor(arguments[place]), *arguments[place + 1 :]])
    assert function(Tensor(arguments[0]), *arguments[1:]) is not None


def test_evaluation_over_x_keeps_that_it_was(rng: np.random.Generator) -> None:
    x, *others = arrays(rng, (4, 3, 2), np.float32, 1, np.float32)
    for out, is_in_place in ((x.copy(), 0), (x, 8)):
        record = built_ins.forward_inference(x, *others, out, 1, 1e-5, True)
        assert record[3] & 8 == is_in_place
    assert unpacked(record).frozen


def test_the_gradient_through_constants(rng: np.random.Generator) -> None:
    x, gamma, beta, mean, var = arrays(rng, (4, 3, 2), np.float32, 1, np.float32)
    record = built_ins.forward_inference(x, gamma, beta, mean, var, np.empty_like(x), 1, 1e-5, True)
    dy, dx = rng.normal(size=x.shape).astype("f4"), np.empty_like(x)
    assert built_ins.backward(dy, x, record, dx, np.empty_like(gamma), np.empty_like(beta)) is True
    expected = dy * (gamma / np.sqrt(var.astype("f8") + 1e-5))[:, None]
    assert np.allclose(dx, expected, rtol=1e-6)


def test_without_memory(rng: np.random.Generator) -> None:
    """The record is the only object that is made, so that a failure is one of the first allocations."""
    failing = pytest.importorskip("_testcapi")
    for function, arguments, _ in calls(rng)[:2]:
        results = []
        for first in range(3):
            given = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
            failing.set_nomemory(first, first + 1)
            try:
                result = function(*given)
            finally:
                failing.remove_mem_hooks()
            results.append(result)
            if result is None:
                assert all(np.array_equal(*pair) for pair in zip(given, arguments) if isinstance(pair[0], np.ndarray))
        assert None in results
        assert any(type(result) is bytes for result in results)
