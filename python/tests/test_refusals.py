# SPDX-License-Identifier: Apache-2.0
"""Refusals, and their messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import BY_POINTER, COPIED, both

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(4, 3, 5, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0.0]], TypeError, "out is of type list"),
        (np.zeros((4, 3, 5, 2)), TypeError, "out has dtype float64, expected float32"),
        (np.zeros((4, 3, 5, 2), ">f4"), TypeError, "out has dtype >f4"),
        (np.zeros((4, 3, 5, 2), "i4"), TypeError, "out has dtype int32"),
        (np.zeros((4, 3, 10), "f4"), ValueError, r"out has shape \(4, 3, 10\), expected \(4, 3, 5, 2\)"),
        (BY_POINTER["read-only"](np.zeros((4, 3, 5, 2), "f4")), ValueError, "out is read-only"),
        (COPIED["misaligned"](np.zeros((4, 3, 5, 2), "f4")), ValueError, "out is misaligned"),
        (COPIED["every second channel"](np.zeros((4, 3, 5, 2), "f4")), ValueError, "out has strides .* in place"),
        (COPIED["backwards"](np.zeros((4, 3, 5, 2), "f4")), ValueError, "out has strides .* in place"),
        (np.ma.zeros((4, 3, 5, 2), "f4"), TypeError, "out is of type MaskedArray"),
    ],
)
def test_out_is_refused(x: Array, out: Any, error: type[Exception], message: str) -> None:
    _, saved = bn.forward_training(x)
    kept = np.array(out, copy=True)
    for call in (
        lambda: bn.forward_training(x, out=out),
        lambda: bn.forward_inference(
            x, None, None, running_mean=np.zeros(3, "f4"), running_var=np.ones(3, "f4"), out=out
        ),
        lambda: bn.backward(x, x, saved, out=out),
        lambda: bn.BatchNorm(3)(x, out),
    ):
        with pytest.raises(error, match=message):
            call()
    assert np.array_equal(kept, np.asarray(out))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([["1", "2"], ["3", "4"]], TypeError, "x has dtype <U1, expected float32, float64, float16 or bfloat16"),
        (np.zeros((4, 3), bool), TypeError, "x has dtype bool"),
        (np.zeros((4, 3), np.longdouble), TypeError, "x has dtype (float128|longdouble)"),
        (np.zeros((4, 3), complex), TypeError, "x has dtype complex128"),
        (np.zeros((4, 3), object), TypeError, "x has dtype object"),
        (np.zeros((4, 3), ">f8"), TypeError, "x has dtype >f8, expected the byte order of this machine"),
        (np.zeros((4, 3), "S4"), TypeError, r"x has dtype \|S4"),
        (np.ma.zeros((4, 3)), TypeError, "x is a masked array of dtype float64"),
        (None, TypeError, "x is None, expected an array"),
        (np.float64(1), ValueError, "x is a single number"),
        (1.5, ValueError, "x is a single number"),
        (np.zeros(()), ValueError, "axis 1 is out of range for an array of rank 0|x is a single number"),
        (np.zeros(4), ValueError, "axis 1 is out of range for an array of rank 1"),
        (np.zeros((4, 0)), ValueError, r"channels|expected \(0,\)"),
    ],
)
def test_x_is_refused(value: Any, error: type[Exception], message: str) -> None:
    for call in (
        lambda: bn.forward_training(value),
        lambda: bn.forward_inference(value, None, None, running_mean=np.zeros(3), running_var=np.ones(3)),
        lambda: bn.moments(value),
        lambda: bn.BatchNorm(3, dtype=float)(value),
    ):
        with pytest.raises(error, match=message):
            call()


def test_dy_has_to_fit_x(x: Array) -> None:
    _, saved = bn.forward_training(x)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 3, 5\), expected \(4, 3, 5, 2\), the shape of x"):
        bn.backward(x[..., 0], x, saved)
    for values in (x, x[:, :, :1, :1]):  # one value in a row: its stride is nothing to go by
        for dtype, name in [(float, "float64"), (np.int32, "int32"), (">f4", ">f4")]:
            with pytest.raises(TypeError, match=f"dy has dtype {name}, expected"):
                bn.backward(values.astype(dtype), values, saved)


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros(4, "f4"), ValueError, r"has shape \(4,\), expected \(3,\): one element per channel"),
        (np.zeros((3, 1), "f4"), ValueError, "has shape"),
        (np.zeros(3, bool), TypeError, "has dtype bool"),
        (np.zeros(3, complex), TypeError, "has dtype complex128"),
        (np.full(3, "1"), TypeError, "has dtype <U1"),
        (np.ma.zeros(3, "f4"), TypeError, "MaskedArray|masked array"),
    ],
)
def test_parameters_are_refused(x: Array, name: str, value: Any, error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"running_mean": np.zeros(3, "f4"), "running_var": np.ones(3, "f4"), name: value}
    with pytest.raises(error, match=message):
        bn.forward_training(x, **arguments)
    with pytest.raises(error, match=message):
        bn.forward_inference(x, **{"gamma": None, "beta": None, **arguments})


SCATTERED = {
    "every other": (np.zeros(6, "f4")[::2], "is not contiguous: it is updated in place"),
    "backwards": (np.zeros(3, "f4")[::-1], "is not contiguous: it is updated in place"),
    "misaligned": (COPIED["misaligned"](np.zeros(3, "f4")), "multiple of 4"),
}


@pytest.mark.parametrize("case", SCATTERED)
def test_scattered_parameters_are_copied_to_be_read(x: Array, case: str) -> None:
    values = np.float32([1, 2, 3])
    scattered, message = SCATTERED[case]
    scattered[...] = values
    y, _ = bn.forward_training(x, scattered, scattered)
    assert np.array_equal(y, bn.forward_training(x, values, values)[0])
    y = bn.forward_inference(x, scattered, scattered, running_mean=scattered, running_var=scattered)
    assert np.array_equal(y, bn.forward_inference(x, values, values, running_mean=values, running_var=values))
    running = {"running_mean": scattered, "running_var": scattered, "activation": "relu"}
    assert np.array_equal(bn.forward_inference(x, scattered, scattered, **running), np.maximum(y, 0))
    with pytest.raises(ValueError, match=f"running_mean.*{message}"):
        bn.forward_training(x, None, None, running_mean=scattered, running_var=values)
    assert np.array_equal(scattered, values)
    layer = bn.BatchNorm(3)
    layer.gamma = scattered
    assert np.array_equal(layer(x), bn.forward_training(x, values)[0])
    layer.running_var = scattered
    with pytest.raises(ValueError, match=f"running_var.*{message}"):
        layer(x)
    assert np.array_equal(
        layer.eval()(x), bn.forward_inference(x, values, running_mean=layer.running_mean, running_var=values)
    )


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_inference_needs_running_statistics(x: Array, name: str) -> None:
    arguments: dict[str, Any] = {"running_mean": np.zeros(3, "f4"), "running_var": np.ones(3, "f4"), name: None}
    with pytest.raises(ValueError, match=f"{name} is None, expected an array"):
        bn.forward_inference(x, None, None, **arguments)
    with pytest.raises(ValueError, match=f"{name} is None, expected an array"):
        bn.forward_inference(x, None, None, activation="relu", **arguments)


def test_running_statistics_are_written_in_place_or_refused(x: Array) -> None:
    ones = np.ones(3, "f4")
    for value, error, message in [
        ([0.0, 0, 0], TypeError, "running_mean is of type list, expected numpy.ndarray: it is updated in place"),
        (BY_POINTER["read-only"](ones), ValueError, "running_mean is read-only"),
    ]:
        with pytest.raises(error, match=message):
            bn.forward_training(x, None, None, running_mean=value, running_var=ones)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="running_"):
        bn.forward_training(x, None, None, running_mean=ones)
    with pytest.raises(ValueError, match="running_"):
        bn.forward_inference(x, None, None, running_mean=ones, running_var=None)  # type: ignore[arg-type]
    assert (ones == 1).all()
    bn.forward_inference(x, None, None, running_mean=BY_POINTER["read-only"](ones), running_var=[1.0, 1, 1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": -1e-9}, ValueError, "eps"),
        ({"eps": np.nan}, ValueError, "eps"),
        ({"eps": np.inf}, ValueError, "eps"),
        ({"momentum": 1.5}, ValueError, "momentum"),
        ({"momentum": np.nan}, ValueError, "momentum"),
        ({"decay": 1.5}, ValueError, "decay is 1.5"),
        ({"decay": np.nan}, ValueError, "decay is nan"),
        ({"momentum": 0.1, "decay": 0.9}, ValueError, "give one of them"),
        ({"momentum": None}, TypeError, "momentum is of type NoneType, expected a number"),
        ({"eps": "small"}, TypeError, "eps is of type str, expected a number"),
        ({"eps": "1e-3"}, TypeError, "eps is of type str, expected a number"),
        ({"eps": 1e-3j}, TypeError, "eps is of type complex, expected a number"),
        ({"eps": np.full(2, 1e-3)}, TypeError, r"eps has shape \(2,\), expected a number"),
        ({"eps": [1e-3]}, TypeError, r"eps has shape \(1,\), expected a number"),
        ({"momentum": np.full((3, 1), 0.1)}, TypeError, r"momentum has shape \(3, 1\), expected a number"),
        ({"decay": np.full(3, 0.9)}, TypeError, r"decay has shape \(3,\), expected a number"),
    ],
)
def test_options_are_refused(x: Array, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.forward_training(x, **options)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, np.float16])
def test_options_may_be_numbers_of_numpy(x: Array, number: Any) -> None:
    options = {"eps": 0.25, "momentum": 0.5}
    running, expected_running = np.zeros((2, 3), "f4"), np.zeros((2, 3), "f4")
    expected, _ = bn.forward_training(x, **both(expected_running), **options)  # type: ignore[arg-type]
    y, _ = bn.forward_training(x, **both(running), **{name: number(value) for name, value in options.items()})
    assert np.array_equal(y, expected)
    assert np.array_equal(running, expected_running)
    assert np.array_equal(bn.inverse_std([1.0], [3.0], eps=number(1)), [0.5])


@pytest.mark.parametrize("axis", [1.0, [1], np.array([1]), np.array(1.0), "1", None, (1.0,), (1, 2.0), ([1],)])
def test_axis_is_an_int_or_a_tuple_of_int(x: Array, axis: Any) -> None:
    """Also where equal ones that fit have been seen before."""
    for fitting in (1, (1,), (1, 2)):
        _, saved = bn.forward_training(x, axis=fitting)
    for call in (
        lambda: bn.forward_training(x, axis=axis),
        lambda: bn.forward_inference(
            x, None, None, running_mean=np.zeros(3, "f4"), running_var=np.ones(3, "f4"), axis=axis
        ),
        lambda: bn.backward(x, x, saved, axis=1.0 if axis is None else axis),
        lambda: bn.moments(x, axis),
        lambda: bn.backward_reduce(x, x, np.zeros(3), np.ones(3), axis=axis),
    ):
        with pytest.raises(TypeError, match="axis is .*, expected an int or a tuple of int"):
            call()


def test_axis_may_be_an_integer_of_numpy(x: Array) -> None:
    expected, _ = bn.forward_training(x, axis=2)
    for axis in (np.int64(2), np.uint8(2), np.array(2), (np.int32(2),)):
        assert np.array_equal(bn.forward_training(x, axis=axis)[0], expected)  # type: ignore[arg-type]
