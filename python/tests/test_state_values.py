# SPDX-License-Identifier: Apache-2.0
"""Values of states that will do or not, and calls of from_state() and to_state() with a slip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import python
from states import BFLOAT16, EPS, FRAMEWORKS, KEYS, arrays_of, attributes, state_of

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_array_whose_dtype_was_changed_in_place() -> None:
    layer = bn.BatchNorm(2)
    layer.running_mean.dtype = np.int32
    with pytest.raises(TypeError, match="running_mean has dtype int32, expected float32"):
        bn.to_state(layer, "keras")


@pytest.mark.parametrize(
    ("dtypes", "dtype", "expected"),
    [
        (["f4", "f4"], None, ("f4", "f4")),
        (["f8", "f8"], None, ("f8", "f8")),
        (["f2", "f2"], None, ("f2", "f2")),
        ([BFLOAT16, BFLOAT16], None, (BFLOAT16, BFLOAT16)),
        (["V2", "V2"], None, (BFLOAT16, BFLOAT16)),
        ([">f4", ">f4"], None, ("f4", "f4")),
        (["f4", "f8"], None, ("f8", "f8")),
        ([BFLOAT16, "f4"], None, ("f4", "f4")),
        ([BFLOAT16, "f2"], None, ("f4", "f4")),
        (["f4", "f4"], BFLOAT16, (BFLOAT16, "f4")),
        (["f4", "f4"], "f2", ("f2", "f4")),
        (["f2", "f2"], "f2", ("f2", "f2")),
        ([BFLOAT16, BFLOAT16], "f2", ("f2", "f4")),
        ([BFLOAT16, BFLOAT16], "f4", ("f4", "f4")),
        (["f4", "f4"], "f8", ("f8", "f8")),
    ],
)
def test_dtypes(rng: np.random.Generator, dtypes: list[Any], dtype: Any, expected: tuple[Any, Any]) -> None:
    """Parameters of one dtype, statistics of the other: nothing loses digits."""
    arrays = []
    for array, given in zip(arrays_of(rng), [dtypes[0]] * 2 + [dtypes[1]] * 2):
        rounded = array.astype(BFLOAT16 if given == "V2" else given)
        arrays.append(rounded.view("V2") if given == "V2" else rounded)
    layer = bn.from_state(state_of("nnx", arrays), "nnx", prefix="a", dtype=dtype)
    assert (layer.dtype, layer.param_dtype) == tuple(np.dtype(each) for each in expected)
    for ours, given in zip(attributes(layer), arrays):
        numbers = given.view(BFLOAT16) if given.dtype == np.dtype("V2") else given
        assert ours.dtype == layer.param_dtype
        assert ours.dtype.isnative
        assert np.array_equal(ours.astype(float), numbers.astype(float))
    assert layer(np.ones((2, 3), layer.dtype)).dtype == layer.dtype


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        ("f8", "f4", "dtype is float32, but the arrays are of float64: digits would be lost"),
        ("f8", "f2", "dtype is float16, but the arrays are of float64"),
        ("f4", "i4", "dtype is int32, expected float32, float64, float16 or bfloat16"),
    ],
)
def test_dtypes_that_would_not_do(rng: np.random.Generator, given: str, dtype: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        bn.from_state(state_of("keras", arrays_of(rng, dtype=given)), "keras", prefix="a", dtype=dtype)


class Tensor:
    """Stands for PyTorch's tensor, which NumPy cannot take if it has a gradient, or elements of bfloat16."""

    def __init__(self, array: Array, gradient: bool = False) -> None:
        self.array, self.gradient = array, gradient
        self.dtype = "torch.bfloat16" if array.dtype == BFLOAT16 else str(array.dtype)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        assert not self.gradient
        assert self.dtype != "torch.bfloat16"
        return self.array

    def detach(self) -> Tensor:
        return Tensor(self.array)

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self.array.astype(np.float32))


@pytest.mark.parametrize("dtype", ["f4", BFLOAT16])
def test_tensors(rng: np.random.Generator, dtype: Any) -> None:
    arrays = arrays_of(rng, dtype=dtype)
    state = state_of("pytorch", [Tensor(array, gradient=True) for array in arrays])
    layer = bn.from_state(state, "pytorch", prefix="a")
    for ours, given in zip(attributes(layer), arrays):
        assert np.array_equal(ours, given)
        assert ours.dtype == given.dtype


def test_bfloat16_without_its_package() -> None:
    code = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np
import batchnorm as bn
try:
    bn.from_state({"weight": np.zeros(2, "V2")}, "pytorch")
except TypeError as error:
    print(error)
"""
    done = python(code)
    assert done.stdout == "weight is of bfloat16, a dtype of the package ml_dtypes, which is not installed\n", done


class Unwilling:
    dtype = np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise RuntimeError("no values yet")


MASKED = np.ma.masked_equal(np.float32([1, 2, 3]), 2)
HUGE = np.array([1, np.inf, 1], np.float32)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, np.ones(4, "f4"), ValueError, r"{key1} has shape \(3,\), expected \(4,\), as {key0} has"),
        (3, np.ones((3, 2), "f4"), ValueError, r"{key3} has shape \(3, 2\), expected one element per channel along"),
        (3, np.ones((1, 3, 1, 2), "f4"), ValueError, r"{key3} has shape \(1, 3, 1, 2\), expected one element per"),
        (2, np.float32(1), ValueError, "{key2} is a single number, expected one element per channel"),
        (1, np.ones(0, "f4"), ValueError, r"{key1} has shape \(0,\), expected at least one channel"),
        (0, np.ones(3, "i8"), TypeError, "{key0} has dtype int64, expected float32, float64, float16 or bfloat16"),
        (3, np.ones(3, bool), TypeError, "{key3} has dtype bool, expected float32"),
        (2, np.ones(3, "c8"), TypeError, "{key2} has dtype complex64"),
        (1, np.array([None] * 3), TypeError, "{key1} has dtype object"),
        (0, None, TypeError, "{key0} is None, expected an array"),
        (0, ["1", "2", "3"], TypeError, "{key0} has dtype <U1"),
        (1, [[1.0], [1.0, 2.0]], TypeError, "{key1} is of type list, expected an array"),
        (2, MASKED, TypeError, "{key2} is a masked array"),
        (1, Unwilling(), TypeError, "{key1} is of type .*Unwilling, expected an array: no values yet"),
        (2, np.float32([0, 1, np.nan]), ValueError, "{key2} is nan in channel 2, expected finite numbers"),
        (2, HUGE, ValueError, "{key2} is inf in channel 1, expected finite numbers"),
        (3, HUGE, ValueError, "{key3} is inf in channel 1, expected finite numbers of at least -eps"),
        (3, np.float32([np.nan, 1, 1]), ValueError, "{key3} is nan in channel 0"),
        (3, np.float32([1, 1, -1.01e-3]), ValueError, r"{key3} is -0.00101 in channel 2, expected .* -eps \(-0.001\)"),
        (3, np.float32([1, -np.inf, 1]), ValueError, "{key3} is -inf in channel 1"),
    ],
)
def test_values_that_would_not_do(
    rng: np.random.Generator, framework: str, index: int, value: Any, error: type[Exception], message: str
) -> None:
    keys = KEYS[framework]
    state = state_of(framework, arrays_of(rng))
    state[keys[index]] = value
    expected = message.format(**{f"key{i}": key for i, key in enumerate(keys)})
    with pytest.raises(error, match=f"^{expected}"):
        bn.from_state(state, framework, prefix="a", **{EPS[framework]: 1e-3})


def test_a_variance_a_little_below_0(rng: np.random.Generator) -> None:
    """Published weights have such variances, for which eps makes up; every way to take them gives the same."""
    x = rng.normal(size=(4, 2))
    var = np.array([-9.9998997e-06, 4])
    expected = x / np.sqrt(var + 1e-5)
    for framework, keys in KEYS.items():
        state = dict(zip(keys, [np.ones(2), np.zeros(2), np.zeros(2), var]))
        layer = bn.from_state(state, framework, prefix="a", axis=1, **{EPS[framework]: 1e-5}).eval()
        assert np.allclose(layer(x), expected, rtol=1e-9)
        again = bn.BatchNorm(2, dtype=np.float64)
        again.load_state_dict(layer.state_dict())
        assert np.array_equal(again.eval()(x), layer(x))
        for wrong in (-1.1e-5, -1.0, np.nan, np.inf):
            state[keys[3]] = np.array([1.0, wrong])
            with pytest.raises(ValueError, match=rf"{keys[3]} is {wrong:g} in channel 1"):
                bn.from_state(state, framework, prefix="a", axis=1, **{EPS[framework]: 1e-5})
            with pytest.raises(ValueError, match=rf"running_var is {wrong:g} in channel 1"):
                again.load_state_dict({**layer.state_dict(), "running_var": np.array([1.0, wrong])})


def test_a_variance_below_0_does_not_leave_eps_behind() -> None:
    """Bessel's factor moves a variance below 0 further from 0, and may move it below -eps."""
    state = {"gamma": [1.0], "beta": [0.0], "moving_mean": [0.0], "moving_variance": [-0.9e-5]}
    bn.from_state(state, "keras", epsilon=1e-5)
    with pytest.raises(ValueError, match=r"moving_variance is -1.35e-05 in channel 0, expected .* -eps \(-1e-05\)"):
        bn.from_state(state, "keras", epsilon=1e-5, unbiased=True, count=3)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (1, 3), (3, 1), (1, 1, 1, 3)])
def test_parameters_with_axes_of_one(rng: np.random.Generator, framework: str, shape: tuple[int, ...]) -> None:
    arrays = arrays_of(rng)
    layer = bn.from_state(state_of(framework, [array.reshape(shape) for array in arrays]), framework, prefix="a")
    for ours, given in zip(attributes(layer), arrays):
        assert np.array_equal(ours, given)
    one = bn.from_state(state_of(framework, [array[:1].reshape(1, 1, 1) for array in arrays]), framework, prefix="a")
    assert one.num_features == 1


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (7.5, ValueError, "a.num_batches_tracked is 7.5, expected a whole number"),
        (np.nan, ValueError, "a.num_batches_tracked is nan, expected a whole number"),
        (np.inf, ValueError, "a.num_batches_tracked is inf, expected a whole number"),
        (1e19, ValueError, r"a.num_batches_tracked is 1e\+19, expected at least 0 and"),
        ("5", TypeError, "a.num_batches_tracked has dtype <U1"),
        (True, TypeError, "a.num_batches_tracked has dtype bool"),
        (-1, ValueError, "a.num_batches_tracked is -1, expected at least 0"),
        (2**63, ValueError, "a.num_batches_tracked is 9223372036854775808, expected at least 0 and"),
        (np.zeros(2, int), ValueError, r"a.num_batches_tracked has shape \(2,\), expected \(\)"),
        (np.zeros(0, int), ValueError, r"a.num_batches_tracked has shape \(0,\), expected \(\)"),
    ],
)
def test_counts_that_would_not_do(rng: np.random.Generator, value: Any, error: type[Exception], message: str) -> None:
    state = {**state_of("pytorch", arrays_of(rng)), "a.num_batches_tracked": value}
    with pytest.raises(error, match=message):
        bn.from_state(state, "pytorch", prefix="a")


def test_zero_variance_and_odd_parameters_are_taken() -> None:
    state = {"gamma": [np.nan, 0.0], "beta": [np.inf, 0.0], "moving_mean": [0.0, 0.0], "moving_variance": [0.0, -0.0]}
    layer = bn.from_state(state, "keras")
    assert np.isnan(layer.gamma[0])
    assert layer.running_var.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("state", "told", "error", "message"),
    [
        ([], {}, TypeError, "state is of type list, expected a mapping"),
        ({}, {}, KeyError, "weight or running_mean is missing"),
        ({b"weight": 1}, {}, TypeError, "the key b'weight' is of type bytes, expected a text"),
        ({("a", None): 1}, {}, TypeError, "the key None is of type NoneType, expected a text"),
        ({}, {"prefix": None}, TypeError, "prefix is of type NoneType, expected a text"),
        ({}, {"decay": 0.5}, TypeError, "decay is none of the settings that count of a pytorch layer: num_features"),
        ({}, {"epsilon": 0.5}, TypeError, "epsilon is none of the settings that count of a pytorch layer"),
        ({}, {"affine": 1}, TypeError, "affine is 1, expected True or False"),
        ({}, {"num_features": 2.0}, TypeError, "num_features is 2.0, expected an int"),
        ({}, {"num_features": 0}, ValueError, "num_features is 0"),
        ({"weight": [1.0]}, {"num_features": 2}, ValueError, r"weight has shape \(1,\), expected \(2,\), num_features"),
        ({"weight": [1.0]}, {"affine": False}, KeyError, "weight is unexpected, as affine is False"),
        ({"weight": [1.0]}, {"bias": True}, KeyError, "bias is missing, but bias is True"),
        ({"bias": [1.0]}, {}, KeyError, "weight is missing, but bias is there"),
        ({"num_batches_tracked": 1}, {}, KeyError, "running_mean is missing, but num_batches_tracked is there"),
        ({"weight": [1.0]}, {"eps": -1}, ValueError, "eps is -1.0, expected a finite number of at least 0"),
        ({"weight": [1.0]}, {"eps": np.nan}, ValueError, "eps is nan"),
        ({"weight": [1.0]}, {"eps": np.inf}, ValueError, "eps is inf, expected a finite number"),
        ({"weight": [1.0]}, {"eps": "1"}, TypeError, "eps is of type str"),
        ({"weight": [1.0]}, {"momentum": 1.5}, ValueError, "momentum is 1.5, expected a number from 0 to 1"),
        ({"weight": [1.0]}, {"momentum": "a"}, TypeError, "momentum is of type str"),
        ({"weight": [1.0]}, {"axis": 1.0}, TypeError, "axis is 1.0"),
        ({"weight": [1.0]}, {"axis": (1, 2)}, ValueError, r"weight has shape \(1,\), expected one .* axis \(1, 2\)"),
        ({"weight": [1.0]}, {"count": 1}, ValueError, "count is 1.0, expected a finite number above 1"),
        ({"weight": [1.0]}, {"count": "9"}, TypeError, "count is of type str"),
    ],
)
def test_calls_that_would_not_do(state: Any, told: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.from_state(state, "pytorch", **told)


@pytest.mark.parametrize("framework", ["torch", "", None, 3, "PyTorch"])
def test_unknown_frameworks(framework: Any) -> None:
    expected = "expected one of 'pytorch', 'keras', 'flax', 'nnx', 'onnx', 'mlx'"
    with pytest.raises(ValueError, match=f"framework is {framework!r}, {expected}"):
        bn.from_state({}, framework)
    with pytest.raises(ValueError, match=f"framework is {framework!r}, {expected}"):
        bn.to_state(bn.BatchNorm(2), framework)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_variance_beyond_its_dtype(dtype: Any) -> None:
    most = np.array([1, np.finfo(dtype).max], dtype)
    state = {"moving_mean": np.zeros(2, dtype), "moving_variance": most}
    layer = bn.from_state(state, "keras", axis=1)
    assert np.array_equal(layer.running_var, most)
    message = f"times 1.5, which makes it unbiased, is beyond {np.dtype(dtype)}"
    with pytest.raises(ValueError, match=f"moving_variance {message}"):
        bn.from_state(state, "keras", unbiased=True, count=3)
    with pytest.raises(ValueError, match=f"running_var {message}"):
        bn.to_state(layer, "pytorch", count=3)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("gamma", np.ones(2, "f4"), ValueError, r"gamma has shape \(2,\), expected \(3,\): one element per channel"),
        ("running_var", np.ones((2, 3), "f4"), ValueError, r"running_var has shape \(2, 3\)"),
        ("running_mean", np.ma.ones(3, "f4"), TypeError, "running_mean is a masked array"),
    ],
)
def test_arrays_that_no_call_has_looked_at(name: str, value: Any, error: type[Exception], message: str) -> None:
    layer = bn.BatchNorm(3)
    setattr(layer, name, value)
    with pytest.raises(error, match=message):
        bn.to_state(layer, "keras")


@pytest.mark.parametrize(
    ("layer", "told", "error", "message"),
    [
        (None, {}, TypeError, "layer is of type NoneType, expected BatchNorm"),
        (bn.BatchNorm(2), {"prefix": 3}, TypeError, "prefix is of type int, expected a text"),
        (bn.BatchNorm(2), {"count": np.inf}, ValueError, "count is inf, expected a finite number above 1"),
        (bn.LazyBatchNorm2d(), {}, RuntimeError, "gamma has no values yet"),
    ],
)
def test_calls_of_to_state_that_would_not_do(
    layer: Any, told: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bn.to_state(layer, "keras", **told)


def test_values_that_diverged_are_written_as_they_are() -> None:
    """A state is no place for a check of training."""
    layer = bn.BatchNorm(2)
    layer.running_var[...] = [np.nan, np.inf]
    assert np.array_equal(bn.to_state(layer, "keras", count=4).arrays["moving_variance"], [np.nan, np.inf], True)
