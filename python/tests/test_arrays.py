# SPDX-License-Identifier: Apache-2.0
"""Arrays that go by pointer, that are copied, and that are written in place."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import BY_POINTER, COPIED, LAYOUTS, pointer, spied

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(4, 3, 5, 2)).astype(np.float32)


def order(array: Array) -> list[int]:
    return sorted((a for a in range(array.ndim) if array.shape[a] > 1), key=lambda a: -abs(array.strides[a]))


@pytest.mark.parametrize("layout", BY_POINTER)
def test_no_copy_is_made(x: Array, layout: str) -> None:
    given = BY_POINTER[layout](x)
    with spied("bn_forward_training") as calls:
        y, saved = bn.forward_training(given)
    assert (calls[0][2], calls[0][7]) == (pointer(given), pointer(y))
    with spied("bn_forward_inference") as calls:
        y = bn.forward_inference(given, None, None, running_mean=np.zeros(3, "f4"), running_var=np.ones(3, "f4"))
    assert (calls[0][2], calls[0][7]) == (pointer(given), pointer(y))
    dy = BY_POINTER[layout](x)
    with spied("bn_backward") as calls:
        dx, dgamma, dbeta = bn.backward(dy, given, saved)
    assert (calls[0][2], calls[0][3]) == (pointer(dy), pointer(given))
    assert calls[0][8:11] == (pointer(dx), pointer(dgamma), pointer(dbeta))
    with spied("bn_moments") as calls:
        bn.moments(given)
    assert calls[0][2] == pointer(given)


@pytest.mark.parametrize("layout", COPIED)
def test_a_copy_is_made(x: Array, layout: str) -> None:
    given = COPIED[layout](x)
    kept = given.copy()
    with spied("bn_forward_training") as calls:
        y, _ = bn.forward_training(given)
    assert calls[0][2] != pointer(given)
    assert np.array_equal(y, bn.forward_training(x)[0])
    assert np.array_equal(given, kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_dense_in_the_order_of_x(x: Array, layout: str) -> None:
    given = LAYOUTS[layout](x)
    y, saved = bn.forward_training(given)
    dx, _, _ = bn.backward(x, given, saved)
    for result in (y, dx):
        assert type(result) is np.ndarray
        assert order(result) == order(given)
        assert result.nbytes == result.base.nbytes if result.base is not None else True
        assert result.transpose(order(result)).flags.c_contiguous
        assert result.flags.writeable


@pytest.mark.parametrize("first", [True, False])
def test_a_field_that_is_no_whole_number_of_elements_from_the_next(rng: np.random.Generator, first: bool) -> None:
    """Alone in its channel the field is what outer slices are made of, 12 bytes apart: one and a half elements."""
    fields = [("value", "f8"), ("number", "i4")]
    records = np.zeros((7, 1), fields if first else fields[::-1])
    assert records.itemsize == 12
    records["value"] = rng.normal(size=(7, 1))
    x = records["value"]
    dense = x.copy()
    # NumPy gives memory of this size out again as it was left: not with these values, or nobody would miss a copy.
    [np.full((7, 1), np.nan) for _ in range(9)].clear()
    with spied("bn_forward_training") as calls:
        y, saved = bn.forward_training(x)
    assert calls[0][2] != pointer(x)
    expected, expected_saved = bn.forward_training(dense)
    assert np.array_equal(y, expected)
    assert np.array_equal(saved.mean, expected_saved.mean)
    for given, exact in zip(bn.backward(x, x, saved), bn.backward(dense, dense, saved)):
        assert np.array_equal(given, exact)


def test_channel_axes_apart_in_memory_give_c_order(x: Array) -> None:
    apart = np.asfortranarray(x)
    y, _ = bn.forward_training(apart, axis=(1, 2))
    assert y.flags.c_contiguous
    assert np.array_equal(y, bn.forward_training(x, axis=(1, 2))[0])


@pytest.mark.parametrize("layout", [name for name in BY_POINTER if name != "read-only"])
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_out_is_written_in_place(x: Array, x_layout: str, layout: str) -> None:
    given, out = LAYOUTS[x_layout](x), BY_POINTER[layout](np.zeros_like(x))
    expected, saved = bn.forward_training(x)
    limit = 16 * np.finfo(x.dtype).eps  # values of order 1; the bits may differ between layouts
    y, _ = bn.forward_training(given, out=out)
    assert y is out
    assert np.allclose(out, expected, rtol=0, atol=limit)
    mean, var = np.zeros(3, "f4"), np.ones(3, "f4")
    assert bn.forward_inference(given, None, None, running_mean=mean, running_var=var, eps=0, out=out) is out
    assert np.array_equal(out, x)
    assert bn.normalize(given, mean, var, out=out) is out
    assert np.array_equal(out, x)
    dx, _, _ = bn.backward(x, given, saved, out=out)
    assert dx is out
    assert np.allclose(out, bn.backward(x, x, saved)[0], rtol=0, atol=limit)


@pytest.mark.parametrize("layout", [name for name in BY_POINTER if name != "read-only"])
def test_in_place(x: Array, layout: str) -> None:
    expected, saved = bn.forward_training(BY_POINTER[layout](x))
    given = BY_POINTER[layout](x)
    y, _ = bn.forward_training(given, out=given)
    assert y is given
    assert np.array_equal(y, expected)
    dy = BY_POINTER[layout](x)
    expected_dx, _, _ = bn.backward(dy, x, saved)
    dx, _, _ = bn.backward(dy, x, saved, out=dy)
    assert dx is dy
    assert np.allclose(dx, expected_dx, rtol=0, atol=1e-6)


def test_what_lies_between_the_slices_is_not_touched(x: Array) -> None:
    larger = np.full((8, 3, 5, 2), 9, np.float32)
    bn.forward_training(x, out=larger[::2])
    assert (larger[1::2] == 9).all()
    bn.forward_training(larger[::2], out=larger[1::2])  # one in the gaps of the other


OVERLAPS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "one sample on": lambda buffer: (buffer[:-1], buffer[1:]),
    "one element on": lambda buffer: (
        buffer.ravel()[:-1][:120].reshape(4, 3, 5, 2),
        buffer.ravel()[1:][:120].reshape(4, 3, 5, 2),
    ),
    "other stride": lambda buffer: (buffer[:2], buffer[::2][:2]),
    "transposed": lambda buffer: (buffer[..., :2], buffer[..., :2].swapaxes(2, 3)),
    "backwards": lambda buffer: (buffer[::-1], buffer),
    "half an element on": lambda buffer: (
        buffer.ravel().view("u1")[2:482].view("f4").reshape(4, 3, 5, 2),
        buffer[:4],
    ),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlap_is_an_error(case: str) -> None:
    buffer = np.arange(150, dtype=np.float32).reshape(5, 3, 5, 2)
    if case == "transposed":
        buffer = np.arange(60, dtype=np.float32).reshape(5, 3, 2, 2)
    given, out = OVERLAPS[case](buffer)
    kept = buffer.copy()
    with pytest.raises(ValueError, match="overlap"):
        bn.forward_training(given, out=out)
    saved = bn.forward_training(kept[: len(given)].copy())[1]
    other = np.zeros_like(given)
    with pytest.raises(ValueError, match="overlap"):
        bn.backward(given, other, saved, out=out)
    with pytest.raises(ValueError, match="overlap"):
        bn.backward(other, given, saved, out=out)
    assert np.array_equal(buffer, kept)


def test_dx_over_x_and_parameters_over_tensors_are_errors(x: Array) -> None:
    _, saved = bn.forward_training(x)
    with pytest.raises(ValueError, match="overlap"):
        bn.backward(np.zeros_like(x), x, saved, out=x)
    flat = x.ravel()
    with pytest.raises(ValueError, match="overlap"):
        bn.forward_training(x, None, None, running_mean=flat[:3], running_var=flat[3:6])
    with pytest.raises(ValueError, match="overlap"):
        bn.forward_training(x.copy(), None, None, running_mean=flat[:3], running_var=flat[1:4])
    # gamma and beta are looked at before anything is written.
    expected, _ = bn.forward_training(x, flat[:3].copy(), flat[3:6].copy())
    assert np.array_equal(bn.forward_training(x, flat[:3], flat[3:6], out=x)[0], expected)


def test_lists_and_subclasses_are_taken_for_their_values() -> None:
    rows = [[1.0, 2.0], [3.0, 8.0]]
    expected, _ = bn.forward_training(np.array(rows), [1.0, 2], (0, 1))
    assert expected.dtype == np.float64
    y, _ = bn.forward_training(rows, [1.0, 2], (0, 1))
    assert np.array_equal(y, expected)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(rows)
    y, _ = bn.forward_training(matrix, np.array([1.0, 2]), [0, 1])
    assert type(y) is np.ndarray
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_lists_of_parameters_hold_numbers(x: Array, name: str) -> None:
    expected, _ = bn.forward_training(x, **{name: np.array([1, 2, 3], "f4")})  # type: ignore[arg-type]
    for given in ([1, 2, 3], (1.0, 2, np.float64(3)), [np.float32(1), np.int8(2), np.array(3)], range(1, 4)):
        assert np.array_equal(bn.forward_training(x, **{name: given})[0], expected)  # type: ignore[arg-type]
    for wrong in (["1", "2", "3"], [b"1"] * 3, [None] * 3, [1.0, None, 2.0], [1j] * 3, [True] * 3, "123"):
        with pytest.raises(TypeError, match=f"{name} has dtype .*, expected real numbers"):
            bn.forward_training(x, **{name: wrong})  # type: ignore[arg-type]


def test_arrays_live_as_long_as_they_are_used(x: Array) -> None:
    y, saved = bn.forward_training(x.tolist(), np.ones(3).tolist())
    mean = saved.mean
    expected = x.astype(float).mean(axis=(0, 2, 3))
    del saved
    gc.collect()
    _ = [np.full(6, 7.0) for _ in range(100)]
    assert np.allclose(mean, expected)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda saved: pickle.loads(pickle.dumps(saved))])
def test_copies_of_saved_statistics_have_memory_of_their_own(x: Array, duplicate: Any) -> None:
    _, saved = bn.forward_training(x)
    other = duplicate(saved)
    assert pointer(other.mean) != pointer(saved.mean)
    assert pointer(other.invstd) != pointer(saved.invstd)
    assert other.frozen is False
    for given, expected in zip(bn.backward(x, x, other), bn.backward(x, x, saved)):
        assert np.array_equal(given, expected)


def test_arrays_that_warn_when_written_are_read_without_a_warning(x: Array) -> None:
    given, _ = np.broadcast_arrays(x, np.zeros((1, 3, 1, 1), "f4"))
    assert np.array_equal(bn.forward_training(given)[0], bn.forward_training(x)[0])


def test_plans_of_many_shapes_do_not_pile_up() -> None:
    from batchnorm._core.layout import plan
    from batchnorm._core.options import kept_options

    for n in range(2, 1000):
        bn.forward_training(np.zeros((n, 1)), eps=float(n))
    for cache in (plan, kept_options):
        info = cache.cache_info()
        assert info.maxsize is not None
        assert info.currsize <= info.maxsize
