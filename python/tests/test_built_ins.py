# SPDX-License-Identifier: Apache-2.0
"""Calls by built-in functions: the same as by ctypes, and none for anything but plain arrays."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import sysconfig
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import python, without_built_ins

import batchnorm as bn
from batchnorm._core import built_ins
from batchnorm._core.arrays import Array
from batchnorm._core.records import unpacked

IS_PLAIN = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
IS_OFF = os.environ.get("BATCHNORM_BUILTINS") == "0"
pytestmark = pytest.mark.skipif(IS_OFF or not IS_PLAIN, reason="built-in functions are of CPython with its global lock")

DTYPES = np.float32, np.float64, np.float16, ml_dtypes.bfloat16
SHAPES = ((4, 3), (2, 3, 5), (4, 8, 2, 2), (1, 3, 7), (6, 1, 7), (0, 3), (2, 3, 0), (3, 1), (2, 4097))


def arrays(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, axis: int, param: Any) -> list[Any]:
    """x, gamma, beta, running_mean and running_var."""
    channels = shape[axis]
    given = [rng.normal(1, 2, size=shape).astype(dtype)]
    given += [rng.normal(1, 1, size=channels).astype(param) for _ in "gbm"]
    return [*given, rng.uniform(0.5, 2, size=channels).astype(param)]


def outcome(x: Array, gamma: Any, beta: Any, mean: Any, var: Any, axis: int, **told: Any) -> dict[str, Any]:
    """The bytes of all that a forward and a backward call give, or the error."""
    running = {} if mean is None else {"running_mean": mean.copy(), "running_var": var.copy()}
    try:
        y, saved = bn.forward_training(x, gamma, beta, axis=axis, **running, **told)
    except (TypeError, ValueError) as error:
        return {"error": (type(error), str(error))}
    evaluated = bn.forward_inference(x, gamma, beta, axis=axis, **running) if running else y
    gradients = bn.backward(y, x, saved)
    parts = {"y": y, "evaluated": evaluated, **dict(zip(("dx", "dgamma", "dbeta"), gradients)), **running}
    parts.update(mean=saved.mean, invstd=saved.invstd, gamma=saved.gamma, beta=saved.beta)
    found = {
        name: None if part is None else (part.tobytes(), part.dtype, part.shape, part.strides)
        for name, part in parts.items()
    }
    return {**found, "axis": saved.axis, "frozen": saved.frozen, "repr": repr(saved)}


def test_they_are_there() -> None:
    assert None not in (built_ins.forward_training, built_ins.forward_inference, built_ins.backward)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_by_both_ways(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> None:
    bn.forward_training(np.ones((2, 1), dtype))  # which makes bfloat16 known
    kinds = {np.dtype(dtype), np.dtype(np.float32 if np.dtype(dtype).itemsize == 2 else dtype)}
    for axis, param in itertools.product((1, -1, 0), kinds):
        x, *others = arrays(rng, shape, dtype, axis, param)
        for absent in ((), (0,), (1,), (0, 1), (2, 3), (0, 1, 2, 3)):
            given = [None if place in absent else each for place, each in enumerate(others)]
            for told in ({}, {"momentum": 0.25, "eps": 1e-3, "unbiased": False}):
                found = outcome(x, *given, axis=axis, **told)
                with without_built_ins():
                    assert found == outcome(x, *given, axis=axis, **told), (axis, param, absent, told)


def record_of(x: Array, y: Array) -> Any:
    return built_ins.forward_training(x, None, None, None, None, y, 1, 0.1, 1e-5, True)


def test_a_plain_call_is_taken(rng: np.random.Generator) -> None:
    """Otherwise the comparison above would compare one way with itself."""
    for dtype in DTYPES:
        bn.forward_training(np.ones((2, 1), dtype))
        x, *others = arrays(rng, (2, 3, 4), dtype, 1, dtype)
        y, gradients = np.empty_like(x), [np.empty_like(others[0]) for _ in "gb"]
        record = built_ins.forward_training(x, *others, y, 1, 0.1, 1e-5, True)
        assert type(record) is bytes
        assert unpacked(record).dtype == dtype
        assert built_ins.backward(y, x, record, np.empty_like(x), *gradients) is True
        assert built_ins.forward_inference(x, *others, y, 1, 1e-5, False) is True
        assert unpacked(built_ins.forward_inference(x, *others, y, 1, 1e-5, True)).frozen


def misaligned(x: Array) -> Array:
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
    array = memory.view(x.dtype).reshape(x.shape)
    array[...] = x
    return array


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


class Own(np.ndarray):
    """A subclass."""


# Arrays of the same numbers that no built-in function takes, in any place.
STRANGE: dict[str, Any] = {
    "a list": lambda x: x.tolist(),
    "a number": lambda x: 1.0,
    "a text": lambda x: "x",
    "bytes": lambda x: x.tobytes(),
    "a memory view": memoryview,
    "a type": lambda x: np.ndarray,
    "a subclass": lambda x: x.view(Own),
    "a masked array": np.ma.asarray,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "another dtype": lambda x: x.astype(np.float64),
    "integers": lambda x: x.astype(np.int32),
    "objects": lambda x: x.astype(object),
    "a structure": lambda x: x.view([("value", x.dtype)]),
    "metadata": lambda x: x.astype(np.dtype(x.dtype, metadata={"of": "a user"})),
    "misaligned": misaligned,
    "another rank": lambda x: x[None],
    "no rank": lambda x: x.reshape(-1)[0],
    "a rank of zero": lambda x: x.reshape(-1)[:1].reshape(()),
    "one more": lambda x: np.concatenate([x, x]),
    "backwards": lambda x: x[::-1],
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "one for all": lambda x: np.broadcast_to(x.reshape(-1)[0], x.shape),
}
STRANGE_TENSORS = {**STRANGE, "Fortran's order": np.asfortranarray, "None": lambda x: None}


def calls(rng: np.random.Generator) -> list[tuple[Any, list[Any], dict[int, bool]]]:
    """Each function, its arguments, and which of them are arrays, and written to."""
    x, *others = arrays(rng, (4, 3, 2), np.float32, 1, np.float32)
    y, dx, dgamma, dbeta = np.zeros_like(x), np.zeros_like(x), np.zeros_like(others[0]), np.zeros_like(others[0])
    record = record_of(x, np.zeros_like(x))
    both = {0: False, 1: False, 2: False}
    return [
        (built_ins.forward_training, [x, *others, y, 1, 0.1, 1e-5, True], {**both, 3: True, 4: True, 5: True}),
        (built_ins.forward_inference, [x, *others, y, 1, 1e-5, True], {**both, 3: False, 4: False, 5: True}),
        (built_ins.backward, [y + 1, x, record, dx, dgamma, dbeta], {0: False, 1: False, 3: True, 4: True, 5: True}),
    ]


def refused(function: Any, arguments: list[Any]) -> bool:
    """True if the result is None, and no array has changed."""
    kept = [each.copy() if isinstance(each, np.ndarray) else None for each in arguments]
    result = function(*arguments)
    same = all(each is None or np.array_equal(each, now) for each, now in zip(kept, arguments))
    return result is None and same


@pytest.mark.parametrize("which", range(3))
def test_every_argument_that_is_not_plain(rng: np.random.Generator, which: int) -> None:
    function, arguments, of_arrays = calls(rng)[which]
    for place, is_written in of_arrays.items():
        is_tensor = arguments[place].ndim > 1
        strange = dict(STRANGE_TENSORS if is_tensor else STRANGE)
        if which < 2 and place in (1, 2):
            del strange["misaligned"]  # of gamma and beta a copy is taken, wherever they are
        if is_written:
            strange["read-only"] = read_only
        for name, make in strange.items():
            with np.errstate(invalid="ignore"):
                wrong = make(arguments[place])
            given = [*arguments[:place], wrong, *arguments[place + 1 :]]
            assert refused(function, given), (place, name)
    assert function(*arguments) is not None


@pytest.mark.parametrize("which", range(3))
def test_arguments_of_the_wrong_number_or_kind(rng: np.random.Generator, which: int) -> None:
    function, arguments, of_arrays = calls(rng)[which]
    for count in (*range(len(arguments)), len(arguments) + 1, 40):
        assert refused(function, (arguments * 5)[:count])
    strange = None, 1, -1, 3, 2**40, -(2**70), 1.5, np.float64(0.1), np.bool_(True), "x", b"", b"x" * 1000, [], object()
    for place in set(range(len(arguments))) - set(of_arrays):
        for wrong in strange:
            given = [*arguments[:place], wrong, *arguments[place + 1 :]]
            if type(wrong) is not type(arguments[place]) or wrong in (3, 2**40, -(2**70)):
                assert refused(function, given), (place, wrong)
    with pytest.raises(TypeError, match="keyword"):
        function(*arguments, x=1)


def test_what_the_library_refuses(rng: np.random.Generator) -> None:
    function, arguments, _ = calls(rng)[0]
    memory = np.zeros(30, np.float32)
    overlapping = [memory[:24].reshape(4, 3, 2), *arguments[1:5], memory[1:25].reshape(4, 3, 2), *arguments[6:]]
    assert refused(function, overlapping)
    assert refused(
        function, [arguments[0][:1, :, :1].copy(), *arguments[1:5], np.zeros((1, 3, 1), "f4"), *arguments[6:]]
    )
    assert refused(function, [*arguments[:3], None, *arguments[4:]])  # one of a pair
    for place, wrong in ((7, 1.5), (7, float("nan")), (8, -1.0), (8, float("inf"))):
        assert refused(function, [*arguments[:place], wrong, *arguments[place + 1 :]])


def test_records_that_are_damaged(rng: np.random.Generator) -> None:
    function, arguments, _ = calls(rng)[2]
    record = arguments[2]
    for damaged in (b"", record[:-1], record + b"x", record[1:], bytes(len(record)), b"\xff" * len(record), record * 2):
        assert refused(function, [*arguments[:2], damaged, *arguments[3:]])
    # The header and the sizes: what is left is numbers.
    for place, value in itertools.product(range(16 + 8 * arguments[1].ndim), (0, 1, 2, 3, 5, 127, 128, 254, 255)):
        damaged = bytearray(record)
        damaged[place] = value
        if damaged != record and (place, value) != (0, 254):  # the same axis from the end
            result = function(*arguments[:2], bytes(damaged), *arguments[3:])
            assert result is None or place == 3, (place, value)  # frozen, or bits that nobody reads


def test_objects_are_given_back(rng: np.random.Generator) -> None:
    """Neither references nor memory are left behind, and none is taken that was not given."""
    for function, arguments, _ in calls(rng):
        wrong = [np.asfortranarray(arguments[0]), *arguments[1:]]
        for given in (arguments, wrong, arguments[:3]):
            function(*given)
            gc.collect()
            objects = [*given, None, True]
            before, blocks = [sys.getrefcount(each) for each in objects], sys.getallocatedblocks()
            for _ in range(1000):
                function(*given)
            after = [sys.getrefcount(each) for each in objects]
            assert all(abs(a - b) < 100 for a, b in zip(after, before))
            assert abs(sys.getallocatedblocks() - blocks) < 100


def test_arrays_live_as_long_as_a_call(rng: np.random.Generator) -> None:
    """Whoever drops all other references meanwhile does not take their memory away."""
    x = rng.normal(size=(64, 32, 64)).astype("f4")
    expected, _ = bn.forward_training(x, np.ones(32, "f4"), np.zeros(32, "f4"))
    held: list[Any] = [None]
    ends = threading.Event()

    def drop() -> None:
        while not ends.is_set():
            held[0] = None
            np.full(x.shape, np.nan, x.dtype)  # takes memory that is free

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        for _ in range(50):
            held[0] = x.copy(), np.ones(32, "f4"), np.zeros(32, "f4")
            given = held[0] or (x.copy(), np.ones(32, "f4"), np.zeros(32, "f4"))
            y, _ = bn.forward_training(*given)
            del given
            assert np.array_equal(y, expected)
    finally:
        ends.set()
        thread.join()


def test_other_threads_run_meanwhile(rng: np.random.Generator) -> None:
    batches = [rng.normal(n, 1, size=(64, 32, 64)).astype("f4") for n in range(4)]
    expected = [bn.forward_training(batch)[0] for batch in batches]
    results: dict[int, list[bool]] = {n: [] for n in range(4)}

    def run(n: int) -> None:
        for _ in range(20):
            results[n].append(np.array_equal(bn.forward_training(batches[n])[0], expected[n]))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(result) == 20 and all(result) for result in results.values())


def test_a_function_outlives_its_module() -> None:
    code = """
import gc, sys
import numpy as np, batchnorm as bn
bn.forward_training
from batchnorm._core import built_ins
function = built_ins.forward_training
vars(built_ins).clear()
del built_ins
for name in [name for name in sys.modules if name.startswith("batchnorm")]:
    del sys.modules[name]
gc.collect()
x = np.float32([[1], [3]])
y = np.empty_like(x)
assert len(function(x, None, None, None, None, y, 1, 0.1, 0.0, True)) == 48
print(function, y.tolist())
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "forward_training" in done.stdout
    assert done.stdout.endswith("[[-1.0], [1.0]]\n")


SHOWN = "import batchnorm as bn; from batchnorm._core import built_ins; print(built_ins.forward_training)"


def test_they_can_be_turned_off() -> None:
    assert python(SHOWN, BATCHNORM_BUILTINS="0").stdout == "None\n"
    assert "built-in" in python(SHOWN, BATCHNORM_BUILTINS="1").stdout
    done = python(
        "import batchnorm as bn; print(bn.forward_training([[1.0], [3.0]], eps=0)[0].tolist())", BATCHNORM_BUILTINS="0"
    )
    assert done.stdout == "[[-1.0], [1.0]]\n"


@pytest.mark.parametrize(
    "change",
    [
        "sys.implementation.name = 'pypy'",
        "sysconfig.get_config_var = lambda name: 1",
        "np.ndarray = type('ndarray', (np.ndarray,), {})",
    ],
)
def test_other_interpreters_go_without(change: str) -> None:
    done = python(f"import sys, sysconfig, numpy as np\n{change}\n{SHOWN}")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "None\n")


def test_one_record_in_several_threads(rng: np.random.Generator) -> None:
    """Whoever looks at a record unpacks it, while others hand it to backward()."""
    x = rng.normal(size=(8, 3)).astype("f4")
    expected = bn.backward(x, x, bn.forward_training(x)[1])
    errors: list[Exception] = []

    def use(saved: Any, start: threading.Barrier, number: int) -> None:
        start.wait()
        try:
            if number % 2:
                assert saved.mean.shape == saved.invstd.shape == (3,)
            assert all(np.array_equal(*pair) for pair in zip(bn.backward(x, x, saved), expected))
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            saved, start = bn.forward_training(x)[1], threading.Barrier(4)
            threads = [threading.Thread(target=use, args=(saved, start, number)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_a_layer_without_arrays_knows_its_channels(rng: np.random.Generator) -> None:
    layer = bn.BatchNorm(3, affine=False)
    layer.track_running_stats = False
    for trains in (True, False):
        with pytest.raises(ValueError, match="x has 5 channels at axis 1, expected 3"):
            layer.train(trains)(rng.normal(size=(4, 5)).astype("f4"))


def test_y_over_x_by_another_view(rng: np.random.Generator) -> None:
    """It is the memory that counts, not the object."""
    x = rng.normal(size=(4, 3)).astype("f4")
    layer = bn.BatchNorm1d(3)
    for out in (x[:], x.reshape(4, 3), x):
        layer(x, out)
        with pytest.raises(RuntimeError, match="overwritten by out=x"):
            layer.backward(x)
    layer(x, np.empty_like(x))
    assert layer.backward(x).shape == x.shape
