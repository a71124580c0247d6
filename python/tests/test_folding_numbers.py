# SPDX-License-Identifier: Apache-2.0
"""Folded weights are computed in float64 and rounded once, into new arrays, from any memory."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from convolving import Geometry

import batchnorm as bn

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]


def integers(values: Array) -> Array:
    """The bits; an integer next to it is of a neighbour in magnitude."""
    return values.view({2: np.int16, 4: np.int32, 8: np.int64}[values.dtype.itemsize])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_are_rounded_once(rng: np.random.Generator, dtype: Any) -> None:
    """Numbers of every magnitude; half of them are between two neighbours, or nearly so."""
    least, most = {2: (-8, 4), 4: (-44, 38), 8: (-300, 300)}[dtype.itemsize]
    least, most = (-39, 38) if dtype == BFLOAT16 else (least, most)
    n = 20000
    scale = rng.choice([-1, 1], n) * 10 ** rng.uniform(least, most, n)
    if dtype != np.float64:
        near = scale[::2].astype(dtype)
        above = (integers(near) + 1).view(dtype)
        halfway = (near.astype(float) + above.astype(float)) / 2
        scale[::2] = halfway * (1 + rng.integers(-1, 2, n // 2) * 2.0 ** -rng.integers(25, 53, n // 2))
    result = bn.fold_linear(np.ones((n, 1), dtype), None, bn.ScaleShift(scale, scale)).weight[:, 0]
    assert result.dtype == dtype
    kept = result != 0
    assert kept.mean() > 0.9
    scale, result = scale[kept], result[kept]
    distance, even = abs(result.astype(float) - scale), integers(result) % 2 == 0
    for step in (-1, 1):
        other = (integers(result) + step).view(dtype).astype(float)
        assert ((distance < abs(other - scale)) | ((distance == abs(other - scale)) & even)).all()


def test_bfloat16_is_not_rounded_by_way_of_float32() -> None:
    given = [1 + 2**-8 + 2**-40, -(1 + 2**-8 + 2**-40), 1 + 3 * 2**-8 - 2**-40, 1 + 2**-8, 1 + 3 * 2**-8]
    once = [1 + 2**-7, -(1 + 2**-7), 1 + 2**-7, 1, 1 + 2**-6]
    twice = [1, -1, 1 + 2**-6, 1, 1 + 2**-6]
    assert np.array(given).astype(BFLOAT16).tolist() in (once, twice)
    folded = bn.fold_linear(np.ones((5, 1), BFLOAT16), np.zeros(5, BFLOAT16), bn.ScaleShift(given, given[::-1]))
    assert folded.weight[:, 0].tolist() == once
    assert folded.bias.tolist() == once[::-1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_fold_computes_in_float64(rng: np.random.Generator, dtype: Any) -> None:
    """Sums that cancel are right to the last bit: b + sum(W * shift) and b * scale + shift are 1 beside 2**30."""
    shift, scale = np.array([2.0**30, 2.0**30, 1]), np.array([1.0, -1, 1])
    weight = np.array([[1, -1, 1]], dtype)
    assert bn.fold_into_linear(bn.ScaleShift(scale, shift), weight, None).bias.tolist() == [1]
    three = weight.reshape(1, 3, 1)
    assert bn.fold_into_conv(bn.ScaleShift(scale, shift), three, None).bias.tolist() == [1]
    assert bn.fold_into_conv(bn.ScaleShift(scale, shift), three.reshape(3, 1, 1), None, transposed=True).bias == [1]
    form = bn.ScaleShift([1 / 3], [1 - 1 / 3])
    assert bn.fold_linear(np.ones((1, 1), dtype), np.ones(1, dtype), form).bias.tolist() == [1]
    for folded in (bn.fold_linear(weight, None, form), bn.fold_into_linear(bn.ScaleShift(scale, shift), weight, None)):
        assert folded.weight.dtype == folded.bias.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inputs_stay_and_results_are_new(rng: np.random.Generator, dtype: Any) -> None:
    weight, bias = rng.normal(size=(4, 4, 3)).astype(dtype), rng.normal(size=4).astype(dtype)
    weight.flags.writeable = bias.flags.writeable = False
    norms = bn.ScaleShift(np.ones(4), np.zeros(4)), bn.BatchNorm(4, eps=0)
    for folded in itertools.chain.from_iterable(
        (
            bn.fold_conv(weight, bias, norm),
            bn.fold_conv(weight, bias, norm, transposed=True),
            bn.fold_linear(weight[..., 0], bias, norm),
            bn.fold_into_conv(norm, weight, bias),
            bn.fold_into_conv(norm, weight, bias, transposed=True),
            bn.fold_into_linear(norm, weight[..., 0], bias),
        )
        for norm in norms
    ):
        assert type(folded) is bn.Folded
        assert type(folded.weight) is type(folded.bias) is np.ndarray
        assert np.array_equal(folded.weight, weight if folded.weight.ndim == 3 else weight[..., 0])
        assert np.array_equal(folded.bias, bias)
        for result in folded:
            assert result.flags.writeable
            assert result.dtype == dtype
            assert not np.shares_memory(result, weight)
            assert not np.shares_memory(result, bias)


@pytest.mark.parametrize("case", range(8))
def test_any_memory_order_and_lists(rng: np.random.Generator, case: int) -> None:
    conv, form = Geometry(rng, case % 2 == 1, 2), bn.ScaleShift
    norm = form(rng.normal(size=conv.outputs).astype("f4"), list(rng.normal(size=conv.outputs)))
    told: dict[str, Any] = {"groups": conv.groups, "transposed": conv.transposed}
    expected = bn.fold_conv(conv.weight, conv.bias, norm, **told)
    larger = np.full((*conv.weight.shape[:-1], 2 * conv.weight.shape[-1]), np.nan)
    larger[..., ::2] = conv.weight
    for weight in (np.asfortranarray(conv.weight), larger[..., ::2], conv.weight.tolist()):
        bias = conv.bias if conv.bias is None else conv.bias.tolist()
        for ours, same in zip(bn.fold_conv(weight, bias, norm, **told), expected):
            assert np.array_equal(ours, same)
