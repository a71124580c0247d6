# SPDX-License-Identifier: Apache-2.0
"""The handlers that XLA calls for batchnorm.jax, called as XLA does, without JAX: by structures that are written here.

No call that they cannot serve may crash or write: it is an error, which they have XLA make.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY

import batchnorm as bn
from batchnorm._core.library import lib

Array = np.ndarray[Any, Any]
KINDS = {"float32": 11, "float64": 12, "float16": 10, "uint32": 8, "int32": 4}


class Extension(Structure):
    _fields_ = [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p)]


class Version(Structure):
    _fields_ = [("struct_size", c_size_t), ("extensions", c_void_p), ("major", c_int), ("minor", c_int)]


class Error(Structure):
    _fields_ = [("struct_size", c_size_t), ("extensions", c_void_p), ("message", c_char_p), ("code", c_int)]


CREATE = CFUNCTYPE(c_void_p, POINTER(Error))


class Api(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extensions", c_void_p),
        ("version", Version),
        ("internal", c_void_p),
        ("create_error", CREATE),
    ]


class Buffer(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extensions", c_void_p),
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("sizes", POINTER(c_int64)),
    ]


class List(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extensions", c_void_p),
        ("count", c_int64),
        ("kinds", POINTER(c_int)),
        ("items", POINTER(c_void_p)),
    ]


class Attributes(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extensions", c_void_p),
        ("count", c_int64),
        ("kinds", POINTER(c_int)),
        ("names", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
    ]


class Name(Structure):
    _fields_ = [("bytes", c_char_p), ("length", c_size_t)]


class Scalar(Structure):
    _fields_ = [("dtype", c_int), ("value", c_void_p)]


class Call(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extensions", POINTER(Extension)),
        ("api", POINTER(Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("operands", List),
        ("results", List),
        ("attributes", Attributes),
    ]


class Metadata(Structure):
    _fields_ = [("struct_size", c_size_t), ("version", Version), ("traits", c_uint32), ("state", c_int64)]


class MetadataExtension(Structure):
    _fields_ = [("extension", Extension), ("metadata", POINTER(Metadata))]


def handler(name: str) -> Any:
    function = ctypes.CFUNCTYPE(c_void_p, POINTER(Call))
    return function((f"batchnorm_xla_{name}", lib))


class Frame:
    """A call with arrays for buffers, and what its structures point to."""

    def __init__(self, operands: list[Any], results: list[Any], version: tuple[int, int] = (0, 3), **told: Any) -> None:
        self.errors: list[tuple[str, int]] = []
        self.kept: list[Any] = [operands, results]

        def create(error: Any) -> int:
            assert error[0].struct_size == ctypes.sizeof(Error)
            self.errors.append((error[0].message.decode(), error[0].code))
            return 0x5EED

        self.create = CREATE(create)
        made = Version(ctypes.sizeof(Version), None, *version)
        self.api = Api(ctypes.sizeof(Api), None, made, None, self.create)
        attributes = {"rank": 2, "axis": 1, "given": 0, "eps": int(np.array(1e-5).view(np.int64)), **told}
        self.call = Call(
            ctypes.sizeof(Call),
            None,
            ctypes.pointer(self.api),
            None,
            3,
            self._list([self._buffer(each) for each in operands]),
            self._list([self._buffer(each) for each in results]),
            self._attributes({name: value for name, value in attributes.items() if value is not None}),
        )

    def _keep(self, thing: Any) -> Any:
        self.kept.append(thing)
        return thing

    def _buffer(self, array: Any) -> Buffer:
        sizes = self._keep((c_int64 * max(array.ndim, 1))(*array.shape))
        data = array.ctypes.data if array.size else None
        return Buffer(ctypes.sizeof(Buffer), None, KINDS[array.dtype.name], data, array.ndim, sizes)

    def _list(self, items: list[Any], kind: int = 1) -> List:
        self._keep(items)
        addresses = self._keep((c_void_p * max(len(items), 1))(*map(ctypes.addressof, items)))
        return List(ctypes.sizeof(List), None, len(items), self._keep((c_int * 16)(*[kind] * len(items))), addresses)

    def _attributes(self, values: dict[str, Any]) -> Attributes:
        names, scalars = [], []
        for name, value in values.items():
            number = self._keep(c_int64(value if isinstance(value, int) else 0))
            names.append(self._keep(Name(name.encode(), len(name))))
            scalars.append(self._keep(Scalar(5 if isinstance(value, int) else 12, ctypes.addressof(number))))
        kinds = self._keep((c_int * 16)(*[3] * len(values)))
        pointers = [self._keep((c_void_p * len(values))(*map(ctypes.addressof, each))) for each in (names, scalars)]
        return Attributes(ctypes.sizeof(Attributes), None, len(values), kinds, *pointers)

    def run(self, name: str = "forward") -> int | None:
        result: int | None = handler(name)(ctypes.byref(self.call))
        assert (result is None) == (not self.errors)
        return result


def arrays(rng: np.random.Generator, shape: tuple[int, ...] = (6, 4)) -> tuple[list[Any], list[Any]]:
    """Operands and results of a forward call."""
    channels = shape[-1]
    operands = [rng.normal(size=shape).astype("f4"), *rng.normal(size=(2, channels)).astype("f4")]
    results = [np.full(shape, 7, "f4"), np.full((2, channels, 2), 7, "u4"), *np.full((2, channels), 7, "f4")]
    return operands, results


def test_forward(rng: np.random.Generator) -> None:
    (x, gamma, beta), (y, saved, mean, var) = operands, results = arrays(rng)
    assert Frame(operands, results).run() is None
    wanted, statistics = bn.forward_training(x, gamma, beta, axis=1)
    assert y.tobytes() == wanted.tobytes()
    assert (saved.view("f8")[..., 0] == [statistics.mean, statistics.invstd]).all()
    assert (mean == statistics.mean.astype("f4")).all()
    assert abs(var / x.astype("f8").var(0) - 1).max() < 2**-23


@pytest.mark.parametrize("version", [(0, 1), (0, 3), (0, 99)])
def test_versions_that_are_known(rng: np.random.Generator, version: tuple[int, int]) -> None:
    assert Frame(*arrays(rng), version=version).run() is None


@pytest.mark.parametrize("version", [(1, 0), (1, 3), (-1, 3), (0, 0), (2**31 - 1, 1)])
def test_versions_that_are_not(rng: np.random.Generator, version: tuple[int, int]) -> None:
    frame = Frame(*arrays(rng), version=version)
    assert frame.run() == 0x5EED
    [(message, code)] = frame.errors
    assert message == "libbatchnorm: XLA's foreign functions are of a version that it cannot serve"
    assert code == 12
    assert (frame.kept[1][0] == 7).all()


def test_metadata(rng: np.random.Generator) -> None:
    """XLA asks for the version when a handler is registered, and then nothing else is there."""
    metadata = Metadata(ctypes.sizeof(Metadata), Version(ctypes.sizeof(Version), None, 9, 9), 9, 9)
    head = Extension(ctypes.sizeof(MetadataExtension), 1, None)
    extension = MetadataExtension(head, ctypes.pointer(metadata))
    frame = Frame(*arrays(rng))
    frame.call.extensions = ctypes.cast(ctypes.pointer(extension), POINTER(Extension))
    for name in names():
        frame.call.api = POINTER(Api)()
        assert handler(name)(ctypes.byref(frame.call)) is None
        assert (metadata.version.major, metadata.version.minor, metadata.traits, metadata.state) == (0, 1, 0, 9)
        metadata.version.major = 9
    assert (frame.kept[1][0] == 7).all()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_other_stages_do_nothing(rng: np.random.Generator, stage: int) -> None:
    frame = Frame(*arrays(rng))
    frame.call.stage = stage
    assert frame.run() is None
    assert (frame.kept[1][0] == 7).all()


def names() -> list[str]:
    header = (REPOSITORY / "Sources" / "CKernels" / "xla.h").read_text(encoding="utf-8")
    return re.findall(r"\*batchnorm_xla_(\w+)\(", header)


def test_all_are_there() -> None:
    assert len(names()) == 9
    for name in names():
        assert handler(name)


# A call with one thing wrong: a change of operands and results, or of attributes.
WRONG: dict[str, Any] = {
    "one operand less": (lambda o, r: o.pop(), {}),
    "one result less": (lambda o, r: r.pop(), {}),
    "one operand more": (lambda o, r: o.append(o[1]), {}),
    "one result more": (lambda o, r: r.append(r[1]), {}),
    "no operands": (lambda o, r: o.clear(), {}),
    "no results": (lambda o, r: r.clear(), {}),
    "gamma of another length": (lambda o, r: o.__setitem__(1, np.ones(5, "f4")), {}),
    "gamma of another dtype": (lambda o, r: o.__setitem__(1, np.ones(4)), {}),
    "gamma of two axes": (lambda o, r: o.__setitem__(1, np.ones((1, 4), "f4")), {}),
    "x of integers": (lambda o, r: o.__setitem__(0, np.ones((6, 4), "i4")), {}),
    "x of one axis": (lambda o, r: o.__setitem__(0, np.ones(24, "f4")), {}),
    "x of no axis": (lambda o, r: o.__setitem__(0, np.ones((), "f4")), {}),
    "y of another shape": (lambda o, r: r.__setitem__(0, np.ones((5, 4), "f4")), {}),
    "y of another dtype": (lambda o, r: r.__setitem__(0, np.ones((6, 4))), {}),
    "saved of floats": (lambda o, r: r.__setitem__(1, np.ones((2, 4, 2), "f4")), {}),
    "saved of half its size": (lambda o, r: r.__setitem__(1, np.ones((2, 4, 1), "u4")), {}),
    "a map in y alone": (lambda o, r: r.__setitem__(0, np.ones((3, 6, 4), "f4")), {}),
    "a map in x alone": (lambda o, r: o.__setitem__(0, np.ones((3, 6, 4), "f4")), {}),
    "rank 0": (None, {"rank": 0}),
    "rank -1": (None, {"rank": -1}),
    "rank 3": (None, {"rank": 3}),
    "rank 65": (None, {"rank": 65}),
    "rank 2**62": (None, {"rank": 2**62}),
    "axis 2": (None, {"axis": 2}),
    "axis -1": (None, {"axis": -1}),
    "no rank": (None, {"rank": None}),
    "no eps": (None, {"eps": None}),
    "eps of floats": (None, {"eps": 1e-5}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(rng: np.random.Generator, name: str) -> None:
    operands, results = arrays(rng)
    change, told = WRONG[name]
    if change:
        change(operands, results)
    frame = Frame(operands, results, **told)
    assert frame.run() == 0x5EED
    [(message, code)] = frame.errors
    assert message == (
        "libbatchnorm: operands, results or attributes are not those of this function; expected a call by batchnorm.jax"
    )
    assert code == 3
    assert all((each == 7).all() or (each == 1).all() for each in results)


def sizes(call: Call, to: Any) -> None:
    for each in (call.operands, call.results):
        for index in range(each.count):
            buffer = ctypes.cast(each.items[index], POINTER(Buffer)).contents
            for axis in range(buffer.rank):
                buffer.sizes[axis] = to(buffer.sizes[axis], axis)


def no_memory(call: Call) -> None:
    ctypes.cast(call.results.items[2], POINTER(Buffer)).contents.data = None


def no_buffer(call: Call) -> None:
    call.results.kinds[0], call.results.items[0] = 0, 8


DAMAGED: dict[str, Any] = {
    "channels below 0": lambda call: sizes(call, lambda size, axis: -4 if size == 4 else size),
    "samples below 0": lambda call: sizes(call, lambda size, axis: -6 if size == 6 else size),
    "no memory of a result": no_memory,
    "no buffer": no_buffer,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_frames_that_nobody_sends(rng: np.random.Generator, name: str) -> None:
    frame = Frame(*arrays(rng))
    DAMAGED[name](frame.call)
    assert frame.run() == 0x5EED


@pytest.mark.parametrize("length", [-1, 2**62])
def test_maps_of_impossible_lengths(rng: np.random.Generator, length: int) -> None:
    operands, results = ([each[None, None, None] for each in list_] for list_ in arrays(rng))
    frame = Frame(operands, results)
    sizes(frame.call, lambda size, axis: length if axis < 2 else size)
    assert frame.run() == 0x5EED


@pytest.mark.parametrize("name", names())
def test_every_handler_refuses_another_ones_call(rng: np.random.Generator, name: str) -> None:
    frame = Frame(*arrays(rng))
    assert (frame.run(name) is None) == (name == "forward")


def test_errors_of_the_library(rng: np.random.Generator) -> None:
    frame = Frame(*arrays(rng), eps=int(np.array(-1.0).view(np.int64)))
    assert frame.run() == 0x5EED
    [(message, code)] = frame.errors
    assert message.startswith("bn_forward_training: eps is -1; expected")
    assert code == 3
    assert (frame.kept[1][0] == 7).all()


def test_a_map(rng: np.random.Generator) -> None:
    """Axes in front are those of a map; of length 1 where all elements have the same."""
    gammas, betas = rng.normal(size=(1, 2, 4)).astype("f4"), rng.normal(size=(3, 1, 4)).astype("f4")
    x = rng.normal(size=(3, 1, 6, 4)).astype("f4")
    kinds = ((6, 4), "f4"), ((2, 4, 2), "u4"), ((4,), "f4"), ((4,), "f4")
    results = [np.zeros((3, 2, *shape), dtype) for shape, dtype in kinds]
    assert Frame([x, gammas, betas], results).run() is None
    for i in range(3):
        for j in range(2):
            single, _ = bn.forward_training(x[i, 0], gammas[0, j], betas[i, 0], axis=1)
            assert results[0][i, j].tobytes() == single.tobytes()


def test_an_empty_batch_may_have_no_address() -> None:
    operands = [np.zeros((0, 4), "f4"), np.ones(4, "f4"), np.ones(4, "f4")]
    results = [np.zeros((0, 4), "f4"), np.full((2, 4, 2), 7, "u4"), *np.full((2, 4), 7, "f4")]
    assert Frame(operands, results).run() is None
    assert (results[2] == 0).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4), (6, 3, 1)])
def test_moments_of_parts(rng: np.random.Generator, parts: int, shape: tuple[int, ...]) -> None:
    x = rng.normal(size=shape).astype("f4")
    moments = np.zeros((3, parts, shape[-1], 2), "u4")
    assert Frame([x], [moments], rank=len(shape), axis=len(shape) - 1).run("moments") is None
    for index, part in enumerate(np.split(x, parts)):
        one = bn.moments(part, axis=-1)
        assert (moments.view("f8")[:, index, :, 0] == [one.count, one.mean, one.m2]).all()


@pytest.mark.parametrize("parts", [0, 4, 5, 7])
def test_parts_have_to_be_equal(rng: np.random.Generator, parts: int) -> None:
    frame = Frame([rng.normal(size=(6, 4)).astype("f4")], [np.zeros((3, parts, 4, 2), "u4")])
    assert frame.run("moments") == 0x5EED


def test_parts_of_channels_first_are_refused(rng: np.random.Generator) -> None:
    frame = Frame([rng.normal(size=(4, 6)).astype("f4")], [np.zeros((3, 2, 4, 2), "u4")], axis=0)
    assert frame.run("moments") == 0x5EED
