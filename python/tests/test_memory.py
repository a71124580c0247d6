# SPDX-License-Identifier: Apache-2.0
"""The library is given no address that is older than what it is the address of, whatever becomes of an array meanwhile.

Code that could crash runs in a process of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import both, python

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("name", ["dtype", "param_dtype", "num_features", "axis"])
def test_what_a_layer_is_made_with_cannot_be_assigned(name: str) -> None:
    for layer in (bn.BatchNorm(4), bn.BatchNorm2d(4), bn.FrozenBatchNorm2d(4), bn.LazyBatchNorm1d()):
        before = getattr(layer, name)
        with pytest.raises(AttributeError):
            setattr(layer, name, 8)
        assert getattr(layer, name) == before


def test_another_dtype_does_not_corrupt_the_heap() -> None:
    """200 layers of float32 that are told that they are of float64: with their addresses of before, a broken heap."""
    result = python("""
import gc
import numpy as np, batchnorm as bn
layers, x, refused = [bn.BatchNorm(4) for _ in range(200)], np.random.default_rng(1).normal(size=(8, 4)), 0
for layer in layers:
    layer(x.astype("f4"))
    try:
        layer.dtype = np.dtype("f8")
    except AttributeError:
        refused += 1
    try:
        layer(x)
    except TypeError:
        refused += 1
del layers, layer
gc.collect()
print(refused)
""")
    assert (result.returncode, result.stdout.strip()) == (0, "400"), result.stderr


def test_an_assignment_by_another_thread() -> None:
    """Arrays of this size are unmapped as soon as nobody has them, so that to read them is a crash."""
    result = python("""
import sys, threading
import numpy as np, batchnorm as bn
sys.setswitchinterval(1e-5)
layer = bn.BatchNorm(2_000_000).eval()
x = np.zeros((2, 2_000_000), "f4")
y = np.empty_like(x)
layer(x, y)
stop, wrong, calls = threading.Event(), [], [0]
def serve():
    while not stop.is_set():
        layer(x, y)
        calls[0] += 1
        found = set(y[0, ::1000].tolist())
        if len(found) > 1 or not found <= {0.0, 1.0, 2.0}:
            wrong.append(found)
thread = threading.Thread(target=serve)
thread.start()
n = 0
while n < 150 or calls[0] < 20 and thread.is_alive():
    n += 1
    layer.beta = np.full(2_000_000, n % 3, "f4")
    layer.gamma = np.full(2_000_000, n % 3, "f4")
stop.set()
thread.join()
assert calls[0] >= 20, calls
print(len(wrong))
""")
    assert (result.returncode, result.stdout.strip()) == (0, "0"), result.stderr


class Assigning:
    """A gamma that assigns beta when it is looked at, as another thread might at that moment."""

    dtype = np.dtype(np.float32)

    def __init__(self, layer: bn.BatchNorm) -> None:
        self.layer = layer

    def __array__(self, *arguments: Any, **told: Any) -> Array:
        self.layer.beta = np.full(3, 7, np.float32)
        return np.full(3, 2, np.float32)


@pytest.mark.parametrize("told", [{}, {"activation": "identity"}])
@pytest.mark.parametrize("training", [False, True])
def test_a_call_has_parameters_of_one_moment(training: bool, told: dict[str, Any]) -> None:
    layer, x = bn.BatchNorm1d(3, **told).train(training), np.float32([[1, 2, 3], [3, 2, 1]])
    layer.gamma = Assigning(layer)
    y = layer(x)
    assert np.allclose(y.mean(axis=0), 0 if training else 4, atol=1e-4)
    assert layer.beta.tolist() == [7, 7, 7]
    layer.backward(x)
    layer.gamma = np.full(3, 2, np.float32)
    assert np.allclose(layer(x).mean(axis=0), 7 if training else 11, atol=1e-4)


DESCRIPTIONS = {
    "dtype": lambda array: setattr(array, "dtype", np.float16),
    "strides": lambda array: setattr(array, "strides", (0,)),
    "shape": lambda array: setattr(array, "shape", (2, 2)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_an_array_that_is_described_anew(description: str, name: str, training: bool) -> None:
    """It is looked at again, by every call: an error, or what NumPy says that its elements are now."""
    layer, x = bn.BatchNorm1d(4).train(training), np.arange(12, dtype="f4").reshape(3, 4)
    array = getattr(layer, name)
    array[...] = [1, 2, 3, 4]
    layer(x)
    kept = array.copy()
    DESCRIPTIONS[description](array)
    if description == "strides" and not (training and name.startswith("running")):
        other = bn.BatchNorm1d(4).train(training)
        other.load_state_dict({**layer.state_dict()})
        assert np.array_equal(layer(x), other(x))
        assert not np.array_equal(getattr(other, name), kept)
    else:
        with pytest.raises((TypeError, ValueError), match=name):
            layer(x)


def test_memory_that_is_moved_under_a_layer() -> None:
    """resize() moves an array that nobody else refers to, or is not asked about."""
    result = python("""
import numpy as np, batchnorm as bn
layer, x = bn.BatchNorm(1 << 20).eval(), np.ones((2, 1 << 20), "f4")
layer(x)
for name in ("gamma", "beta", "running_mean", "running_var"):
    array = getattr(layer, name)
    try:
        array.resize(1, refcheck=False)
    except ValueError:
        continue
    try:
        layer(x)
    except ValueError as error:
        print(name in str(error))
    array.resize(1 << 20, refcheck=False)
""")
    assert (result.returncode, result.stdout.split()) == (0, ["True"] * 4), result.stderr


def test_saved_has_no_address() -> None:
    """A number in an attribute used to be taken for an address, which was a segmentation fault."""
    result = python("""
import numpy as np, batchnorm as bn
x = np.ones((8, 4, 6, 6), "f4")
y, saved = bn.forward_training(x)
for name in ("mean_address", "invstd_address", "channel_shape", "frozen", "mean", "invstd", "gamma", "beta", "axis"):
    try:
        setattr(saved, name, 8)
    except AttributeError:
        pass
    else:
        print(name)
bn.backward(y, x, saved)
""")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_a_pure_count_lives_as_long_as_the_call(rng: np.random.Generator) -> None:
    """The library read the count from a copy that was gone, and which the mask's 8 bytes had taken the place of."""
    x = rng.normal(size=(4, 3, 5))
    policy = bn.Running("cumulative", pure=True, num_batches=7)
    for _ in range(20):
        _, saved = bn.forward_training(
            x, **both((np.zeros(3), np.ones(3))), running=policy, activation="relu", save_mask=True
        )
        assert saved.num_batches == 8
        assert np.allclose(saved.running_mean, x.mean(axis=(0, 2)) / 8, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_moments_that_are_described_anew(rng: np.random.Generator) -> None:
    """invstd() read as many variances as an array said that somebody had been given."""
    x = rng.normal(size=(4, 3))
    seen = bn.moments(x)
    expected = seen.invstd()
    for array in (*seen, seen.count, seen.mean, seen.m2, seen[2]):
        array.dtype = np.float32
    assert np.array_equal(seen.invstd(), expected)
    count, mean, m2 = seen.update(x)
    assert (count == 8).all()
    assert np.allclose((mean, m2), (x.mean(axis=0), 2 * 4 * x.var(axis=0)), rtol=1e-12)


def test_a_count_that_cannot_grow_is_found_before_anything_is_written(rng: np.random.Generator) -> None:
    layer, x = bn.BatchNorm1d(3), rng.normal(size=(4, 3)).astype("f4")
    with pytest.raises(TypeError, match="num_batches_tracked has dtype object, expected int64"):
        layer.num_batches_tracked = None
    layer.__dict__["num_batches_tracked"] = None
    with pytest.raises(TypeError):
        layer(x)
    assert layer.running_mean.tolist() == [0, 0, 0]
    count = np.array(5)
    count.flags.writeable = False
    layer.num_batches_tracked = count
    layer(x)
    assert (count, layer.num_batches_tracked) == (5, 6)
