# SPDX-License-Identifier: Apache-2.0
"""Arguments that no caller should pass, straight through ctypes: a status comes back, and nothing was written.

The calls are made in a process of their own, which has to end normally. Addresses are NULL, misaligned or shared, but
never those of memory that is not there: no library can tell.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from helpers import python

from batchnorm._core import library
from batchnorm._core.structs import Options, Shape, Status

OK, NULL, SHAPE, DTYPE = Status.OK, Status.ERROR_NULL, Status.ERROR_SHAPE, Status.ERROR_DTYPE
STRUCT_SIZE, OPTION, PAIR = Status.ERROR_STRUCT_SIZE, Status.ERROR_OPTION, Status.ERROR_PAIR
OVERLAP, ALIGNMENT, SINGLE = Status.ERROR_OVERLAP, Status.ERROR_ALIGNMENT, Status.ERROR_SINGLE_VALUE

LAYER = "shape dtype x gamma beta running_mean running_var y saved_mean saved_invstd options"


class Function(NamedTuple):
    """Names of the arguments; which of them are written; which may be NULL; which may be one memory."""

    arguments: str
    outputs: str
    optional: str
    shared: tuple[tuple[str, str], ...] = ()


FUNCTIONS = {
    "bn_forward_training": Function(
        LAYER,
        "running_mean running_var y saved_mean saved_invstd",
        "gamma beta y saved_mean saved_invstd options",
        (("y", "x"),),
    ),
    "bn_forward_inference": Function(
        LAYER, "y saved_mean saved_invstd", "gamma beta y saved_mean saved_invstd options", (("y", "x"),)
    ),
    "bn_backward": Function(
        "shape dtype dy x gamma beta saved_mean saved_invstd dx dgamma dbeta options",
        "dx dgamma dbeta",
        "gamma beta dx dgamma dbeta options",
        (("dx", "dy"),),
    ),
    "bn_moments": Function("shape dtype x count mean m2 stride options", "count mean m2", "options"),
    "bn_merge_moments": Function(
        "parts channels counts means m2s stride count mean m2",
        "count mean m2",
        "",
        (("count", "counts"), ("mean", "means"), ("m2", "m2s")),
    ),
    "bn_inverse_std": Function("channels count m2 invstd options", "invstd", "options", (("invstd", "m2"),)),
    "bn_normalize": Function(
        "shape dtype x gamma beta mean invstd y options", "y", "gamma beta options", (("y", "x"),)
    ),
    "bn_backward_reduce": Function(
        "shape dtype dy x mean invstd sum_dy sum_dy_x_hat stride options", "sum_dy sum_dy_x_hat", "options"
    ),
    "bn_backward_apply": Function(
        "shape dtype dy x gamma mean invstd count sum_dy sum_dy_x_hat dx options",
        "dx",
        "gamma options",
        (("dx", "dy"),),
    ),
    "bn_update_running": Function(
        "channels dtype count mean m2 running_mean running_var options", "running_mean running_var", "options"
    ),
}
SCALARS = {"shape", "dtype", "options", "parts", "channels", "stride"}
BYTES = 1024  # of every buffer: enough for 4 x 3 x 5 doubles


class Place(NamedTuple):
    """The place that a pointer points to: so many bytes into the buffer of an argument."""

    name: str
    offset: int = 0


Case = tuple[str, dict[str, Any], Status]


def shape(**changes: int) -> Shape:
    return Shape(**{"struct_size": ctypes.sizeof(Shape), "outer": 4, "channels": 3, "inner": 5, **changes})


def options(**changes: Any) -> Options:
    return Options(**{"struct_size": ctypes.sizeof(Options), "eps": 1e-5, "momentum": 0.1, **changes})


class Memory:
    """A buffer for every pointer of a function, with values that it can compute with."""

    def __init__(self, function: Function) -> None:
        self.names = function.arguments.split()
        self.outputs = function.outputs.split()
        self.buffers = {}
        for name in self.names:
            if name not in SCALARS:
                fill = 20.0 if name.startswith("count") else 1.0
                self.buffers[name] = (ctypes.c_double * (BYTES // 8))(*[fill] * (BYTES // 8))

    def arguments(self, changes: dict[str, Any]) -> list[Any]:
        values = {"shape": shape(), "dtype": 2, "options": options(), "parts": 2, "channels": 3, "stride": 7}
        values = {**values, **{name: Place(name) for name in self.buffers}, **changes}
        return [self.address(value) if isinstance(value, Place) else value for value in map(values.get, self.names)]

    def address(self, place: Place) -> int:
        return ctypes.addressof(self.buffers[place.name]) + place.offset

    def contents(self) -> list[bytes]:
        return [bytes(self.buffers[name]) for name in self.outputs]


def impossible_shapes() -> Iterator[tuple[Any, Status]]:
    yield None, NULL
    for size in (0, 8, ctypes.sizeof(Shape) - 1, ctypes.sizeof(Shape) + 8, 2**64 - 1):
        yield shape(struct_size=size), STRUCT_SIZE
    yield shape(channels=0), SHAPE
    for huge in (2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1):
        yield shape(outer=huge), SHAPE
        yield shape(channels=huge), SHAPE
        yield shape(inner=huge), SHAPE
        yield shape(x_stride=huge), SHAPE
        yield shape(y_stride=huge), SHAPE
        yield shape(dx_stride=huge), SHAPE
        # Empty batches: the statistics of so many channels cannot be addressed either.
        yield shape(outer=0, channels=huge), SHAPE
        yield shape(inner=0, channels=huge), SHAPE
    for outer, channels, inner in ((2**32, 2**32, 1), (2**22, 2**21, 2**21), (1, 2**33, 2**31), (2**33, 1, 2**31)):
        yield shape(outer=outer, channels=channels, inner=inner), SHAPE
    for stride in (1, 14):
        yield shape(x_stride=stride), SHAPE
        yield shape(y_stride=stride), SHAPE
        yield shape(dx_stride=stride), SHAPE


def impossible_options() -> Iterator[tuple[Any, Status]]:
    for size in (0, 8, ctypes.sizeof(Options) + 8, 2**64 - 1):
        yield options(struct_size=size), STRUCT_SIZE
    for eps in (math.nan, math.inf, -math.inf, -1e-300):
        yield options(eps=eps), OPTION
    for momentum in (math.nan, math.inf, -1e-300, 1 + 2.0**-52):
        yield options(momentum=momentum), OPTION
    for flag in (2, -1, 2**31 - 1, -(2**31)):
        yield options(biased_running_var=flag), OPTION
        yield options(frozen=flag), OPTION


def cases(name: str, memory: Memory) -> Iterator[Case]:
    """Yields a name for each attack, the arguments that it changes, and the status that has to come back."""
    function = FUNCTIONS[name]
    yield "nothing", {}, OK
    for argument in memory.names:
        if argument in memory.buffers:
            needed = NULL if argument not in function.optional.split() else OK
            if name == "bn_forward_training" and argument.startswith("running"):
                needed = PAIR
            yield f"{argument} NULL", {argument: None}, needed
            yield f"{argument} misaligned", {argument: Place(argument, 1)}, ALIGNMENT
            yield f"{argument} half aligned", {argument: Place(argument, 4)}, ALIGNMENT
    if "options" in memory.names:
        yield "options NULL", {"options": None}, OK
        for value, status in impossible_options():
            yield f"options {[getattr(value, f[0]) for f in Options._fields_]}", {"options": value}, status
    if "shape" in memory.names:
        for value, status in impossible_shapes():
            yield f"shape {value and [getattr(value, f[0]) for f in Shape._fields_]}", {"shape": value}, status
    if "dtype" in memory.names:
        for dtype in (0, 5, 77, -1, 2**31 - 1, -(2**31)):
            yield f"dtype {dtype}", {"dtype": dtype}, DTYPE
    for count in ("channels", "parts") if "channels" in memory.names else ():
        if count in memory.names:
            for value in (2**60, 2**61, 2**63, 2**64 - 1):
                yield f"{count} {value}", {count: value}, SHAPE
    if "channels" in memory.names:
        yield "channels 0", {"channels": 0}, SHAPE
    if "stride" in memory.names:
        for stride in (1, 2, 2**60, 2**63 - 1, 2**63, 2**64 - 1):
            yield f"stride {stride}", {"stride": stride}, SHAPE
        yield "stride 0", {"stride": 0}, OK
    yield from overlaps(function, memory)


def overlaps(function: Function, memory: Memory) -> Iterator[Case]:
    for output in memory.outputs:
        for other in memory.buffers:
            if other != output:
                exact = OK if (output, other) in function.shared else OVERLAP
                yield f"{output} = {other}", {output: Place(other)}, exact
                yield f"{output} = {other} + 8", {output: Place(other, 8)}, OVERLAP


def with_statuses() -> ctypes.CDLL:
    """The library with the statuses that the package makes exceptions of."""
    lib = library.load_library(library.find_library())
    for name, (result, _) in library.PROTOTYPES.items():
        if result is library.check:
            getattr(lib, name).restype = ctypes.c_int
    return lib


def attack(name: str) -> None:
    """Makes every call; prints what came out otherwise than it has to."""
    lib = with_statuses()
    function = getattr(lib, name)
    made = 0
    for what, changes, expected in cases(name, Memory(FUNCTIONS[name])):
        memory = Memory(FUNCTIONS[name])
        before = memory.contents()
        status = function(*memory.arguments(changes))
        made += 1
        if status != expected:
            print(f"{what}: status {status}, expected {expected}, {lib.bn_last_error()!r}")
        if status != OK and memory.contents() != before:
            print(f"{what}: an output was written before status {status}")
        if status != OK and not lib.bn_last_error():
            print(f"{what}: no message")
    print(f"{made} calls of {name}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hostile_arguments(name: str) -> None:
    done = python(f"import test_hostile; test_hostile.attack({name!r})")
    assert done.returncode == 0, done.stderr
    *wrong, last = done.stdout.splitlines()
    assert last.endswith(f"calls of {name}")
    assert wrong == []


COUNTS = """
import ctypes, math
from batchnorm._core.structs import Shape, Status
from test_hostile import with_statuses
lib = with_statuses()
one = lambda value: ctypes.byref(ctypes.c_double(value))
for value in (math.nan, math.inf, -math.inf, -1.0, -5e-324):
    out = [ctypes.c_double(7) for _ in "123"]
    assert lib.bn_merge_moments(1, 1, one(value), one(0), one(0), 0, *map(ctypes.byref, out)) == Status.ERROR_OPTION
    assert [o.value for o in out] == [7, 7, 7]
    shape = ctypes.pointer(Shape(ctypes.sizeof(Shape), 1, 1, 1))
    assert lib.bn_backward_apply(shape, 2, *[one(1)] * 2, None, *[one(1)] * 2, one(value), one(1), one(1),
                                 ctypes.byref(out[0]), None) == Status.ERROR_OPTION
    assert out[0].value == 7
out = [ctypes.c_double(7) for _ in "123"]
assert lib.bn_merge_moments(0, 1, None, None, None, 0, *map(ctypes.byref, out)) == Status.OK
assert [o.value for o in out] == [0, 0, 0]
assert lib.bn_forward_training(shape, 2, one(1), *[None] * 8) == Status.ERROR_SINGLE_VALUE
for n in (-1, 1025, 2**31 - 1, -(2**31)):
    assert lib.bn_set_num_threads(n) == Status.ERROR_OPTION
for status in (-1, 9, 2**31 - 1, -(2**31)):
    assert lib.bn_status_string(status) == b"unknown status"
print("done")
"""


def test_hostile_numbers() -> None:
    done = python(COUNTS)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
