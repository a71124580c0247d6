# SPDX-License-Identifier: Apache-2.0
"""The library's outer x channels x inner against NumPy's own idea of where elements are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers import pointer

from batchnorm._core.layout import Plan, channel_axes, order_in_memory, plan

Array = np.ndarray[Any, Any]


def places(array: Array, axes: tuple[int, ...]) -> list[set[int]]:
    """Per channel, where NumPy has its elements, in elements from the first."""
    numbered = np.zeros(array.shape, np.int64)
    for axis, stride in enumerate(array.strides):
        numbered += np.arange(array.shape[axis]).reshape([-1 if a == axis else 1 for a in range(array.ndim)]) * stride
    channels = np.moveaxis(numbered // array.itemsize, axes, range(len(axes)))
    return [set(row.ravel().tolist()) for row in channels.reshape(np.prod(channels.shape[: len(axes)], dtype=int), -1)]


def planned(fit: Plan, stride: int) -> list[set[int]]:
    """Per channel, where the library looks."""
    shape = fit.shape
    stride = stride or shape.channels * shape.inner
    return [
        {
            outer * stride + channel * shape.inner + inner
            for outer, inner in itertools.product(range(shape.outer), range(shape.inner))
        }
        for channel in range(shape.channels)
    ]


def some_views(rng: np.random.Generator) -> Array:
    """A view with random lengths, order of axes and slices."""
    rank = int(rng.integers(1, 5))
    lengths = rng.integers(1, 4, rank)
    steps = rng.choice([1, 1, 1, 2], rank)
    extra = rng.choice([0, 0, 0, 2], rank)
    base = np.zeros(lengths * steps + extra, np.float32)
    view = base[tuple(slice(0, n * s, s) for n, s in zip(lengths, steps))]
    return view.transpose(rng.permutation(rank))


def test_a_plan_finds_every_element_of_every_channel(rng: np.random.Generator) -> None:
    fitting = gapped = 0
    for _ in range(4000):
        view = some_views(rng)
        first = int(rng.integers(0, view.ndim))
        axes = tuple(range(first, int(rng.integers(first + 1, view.ndim + 1))))
        fit = plan(view.shape, view.dtype, axes, view.strides)
        if fit is None:
            continue
        fitting += 1
        gapped += fit.shape.x_stride > 0
        assert planned(fit, fit.shape.x_stride) == places(view, axes), (view.shape, view.strides, axes)
    assert fitting > 1000
    assert gapped > 100


def test_three_tensors_in_one_plan(rng: np.random.Generator) -> None:
    fitting = 0
    for _ in range(20000):
        x, y = some_views(rng), some_views(rng)
        if x.shape != y.shape:
            continue
        axis = int(rng.integers(0, x.ndim))
        fit = plan(x.shape, x.dtype, axis, x.strides, y.strides, x.strides)
        if fit is None:
            continue
        fitting += 1
        struct = fit.shape
        assert struct.dx_stride == struct.x_stride
        assert planned(fit, struct.x_stride) == places(x, (axis,))
        assert planned(fit, struct.y_stride) == places(y, (axis,))
    assert fitting > 100


@pytest.mark.parametrize(
    ("view", "axis", "expected"),
    [
        (np.zeros((2, 3, 4, 5)), 1, (2, 3, 20, 0)),
        (np.zeros((2, 4, 5, 3)), -1, (40, 3, 1, 0)),
        (np.zeros((2, 3)), 1, (2, 3, 1, 0)),
        (np.zeros((2, 3)), 0, (1, 2, 3, 0)),
        (np.zeros((2, 3, 4, 5)), (1, 2), (2, 12, 5, 0)),
        (np.zeros((2, 3, 4, 5)).T, 2, (2, 3, 20, 0)),
        (np.zeros((4, 3, 5))[::2], 1, (2, 3, 5, 30)),
        (np.zeros((2, 9, 5))[:, :3], 1, (2, 3, 5, 45)),
        (np.zeros((2, 4, 9))[..., :3], 2, (8, 3, 1, 9)),
        (np.zeros((2, 4, 1))[:, :3], 1, (2, 3, 1, 4)),
        (np.zeros((5, 9))[:, :1], 1, (5, 1, 1, 9)),
        (np.zeros((5, 2, 9))[:, :, :4], 0, None),  # the gap is inside of the channels
        (np.zeros((2, 6, 5))[:, ::2], 1, None),  # the channels lie apart
        (np.zeros((2, 3, 10))[..., ::2], 1, None),  # the elements lie apart
        (np.zeros((2, 3, 5))[::-1], 1, None),
        (np.broadcast_to(np.zeros((1, 3, 5)), (2, 3, 5)), 1, None),
        (np.zeros((2, 3, 4, 5)).transpose(0, 2, 1, 3), (1, 2), None),  # the channel axes are in the wrong order
        (np.zeros((2, 3, 4, 5)).transpose(0, 1, 3, 2), (1, 2), None),  # the channel axes are not adjacent
        (np.zeros((4, 6, 3, 5))[::2, :2], 2, None),  # two gaps
        (np.zeros((0, 3, 5)), 1, (0, 3, 1, 0)),
    ],
)
def test_known_layouts(view: Array, axis: Any, expected: tuple[int, ...] | None) -> None:
    fit = plan(view.shape, view.dtype, axis, view.strides)
    if expected is None:
        assert fit is None
    else:
        assert fit is not None
        shape = fit.shape
        assert (shape.outer, shape.channels, shape.inner, shape.x_stride) == expected


def test_axes_of_one_element_may_have_any_stride() -> None:
    base = np.zeros((2, 3, 5))
    odd = np.lib.stride_tricks.as_strided(base, (2, 1, 3, 5, 1), (120, 7, 40, 8, -16))
    assert order_in_memory(odd.shape, odd.strides) == (0, 2, 3)
    assert pointer(odd) == pointer(base)


@pytest.mark.parametrize("axis", [3, -4, (0, 3), (), (0, 2), (1, 0), (1, 1), (2, -3)])
def test_impossible_axes(axis: Any) -> None:
    with pytest.raises(ValueError, match="axis"):
        channel_axes(axis, 3)


def test_axes_are_counted_from_the_end_too() -> None:
    assert channel_axes(-1, 3) == (2,)
    assert channel_axes((-2, 2), 3) == (1, 2)
