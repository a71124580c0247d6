# SPDX-License-Identifier: Apache-2.0
"""state_dict() and load_state_dict(): PyTorch's names, all or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import batchnorm as bn

KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def trained(**arguments: Any) -> bn.BatchNorm:
    layer = bn.BatchNorm(3, **arguments)
    x = np.random.default_rng(5).normal(size=(8, 3)).astype(layer.dtype)
    for factor in (1, 2):
        layer(x * layer.dtype.type(factor))
    if layer.affine:
        layer.gamma[...], layer.beta[...] = [[2, 3, 4], [5, 6, 7]]
    return layer


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track_running_stats", [True, False])
def test_there_and_back(affine: bool, track_running_stats: bool) -> None:
    arguments = {"affine": affine, "track_running_stats": track_running_stats}
    state = trained(**arguments).state_dict()
    assert list(state) == (KEYS[:2] if affine else []) + (KEYS[2:] if track_running_stats else [])
    layer = bn.BatchNorm(3, **arguments)
    layer.load_state_dict(state)
    assert same(layer.state_dict(), state)
    assert layer.num_batches_tracked == (2 if track_running_stats else 0)


def test_a_state_is_a_copy() -> None:
    layer = trained()
    state = layer.state_dict()
    for value in state.values():
        value[...] = 9
    assert layer.gamma.tolist() == [2, 3, 4]
    assert state["num_batches_tracked"].dtype == np.int64
    assert state["num_batches_tracked"].shape == ()


def test_loading_is_in_place() -> None:
    layer = bn.BatchNorm(3)
    arrays = layer.gamma, layer.running_mean
    layer.load_state_dict(trained().state_dict())
    assert layer.gamma is arrays[0]
    assert layer.running_mean is arrays[1]
    assert type(layer.num_batches_tracked) is int


@pytest.mark.parametrize("count", [7, np.int64(7), np.array(7), np.array(7, np.int32), np.array(7, np.uint8)])
def test_counts(count: Any) -> None:
    layer = bn.BatchNorm(3)
    layer.load_state_dict({**trained().state_dict(), "num_batches_tracked": count})
    assert layer.num_batches_tracked == 7
    assert type(layer.num_batches_tracked) is int


def test_what_converts_to_an_array_is_taken() -> None:
    class Tensor:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.array

    layer = bn.BatchNorm(3)
    state = trained().state_dict()
    layer.load_state_dict({key: Tensor(value) for key, value in state.items()})
    assert same(layer.state_dict(), state)


def test_a_missing_count_is_zero() -> None:
    state = trained().state_dict()
    del state["num_batches_tracked"]
    layer = trained()
    layer.load_state_dict(state)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": np.ones(4, "f4")}, ValueError, r"weight has shape \(4,\), expected \(3,\)"),
        ({"running_var": np.ones((3, 1), "f4")}, ValueError, "running_var has shape"),
        ({"running_var": np.ones(3)}, TypeError, "running_var has dtype float64, expected float32"),
        ({"bias": None}, TypeError, "bias is None, expected an array"),
        ({"num_batches_tracked": 1.5}, TypeError, "num_batches_tracked has dtype float64"),
        ({"num_batches_tracked": -1}, ValueError, "num_batches_tracked is -1"),
        ({"num_batches_tracked": np.zeros(2, int)}, ValueError, r"num_batches_tracked has shape \(2,\)"),
        ({"running_mean": np.ma.zeros(3, "f4")}, TypeError, "running_mean is a masked array"),
        ({"weight": np.ma.masked_equal(np.float32([1, 2, 3]), 2)}, TypeError, "weight is a masked array"),
        ({"num_batches_tracked": np.ma.array(7)}, TypeError, "num_batches_tracked is a masked array"),
        ({"gamma": np.ones(3, "f4")}, KeyError, "gamma is unexpected"),
    ],
)
def test_nothing_is_half_loaded(change: Any, error: type[Exception], message: str) -> None:
    layer = bn.BatchNorm(3)
    before = layer.state_dict()
    with pytest.raises(error, match=message):
        layer.load_state_dict({**trained().state_dict(), **change})
    assert same(layer.state_dict(), before)


def test_values_may_be_the_layer_s_own_arrays() -> None:
    layer = trained()
    before = layer.state_dict()
    swapped = {
        "weight": layer.beta,
        "bias": layer.gamma[::-1],
        "running_mean": layer.running_var,
        "running_var": layer.running_mean,
    }
    layer.load_state_dict(swapped)
    assert np.array_equal(layer.gamma, before["bias"])
    assert np.array_equal(layer.beta, before["weight"][::-1])
    assert np.array_equal(layer.running_mean, before["running_var"])
    assert np.array_equal(layer.running_var, before["running_mean"])


@pytest.mark.parametrize("key", KEYS[:4])
def test_a_missing_key(key: str) -> None:
    layer = bn.BatchNorm(3)
    before, state = layer.state_dict(), trained().state_dict()
    del state[key]
    with pytest.raises(KeyError, match=f"{key} is missing"):
        layer.load_state_dict(state)
    assert same(layer.state_dict(), before)
    layer.load_state_dict(state, strict=False)
    assert same(layer.state_dict(), {**trained().state_dict(), key: before[key]})


def test_without_strict_the_unexpected_is_passed_over() -> None:
    layer = bn.BatchNorm(3, affine=False)
    layer.load_state_dict({**trained().state_dict(), "more": np.zeros(1)}, strict=False)
    assert layer.num_batches_tracked == 2
    layer.load_state_dict({}, strict=False)
    assert layer.num_batches_tracked == 2


def test_a_read_only_array_is_not_half_loaded() -> None:
    layer = bn.BatchNorm(3)
    layer.beta.flags.writeable = False
    with pytest.raises(ValueError, match="bias cannot be loaded: the layer's array is read-only"):
        layer.load_state_dict(trained().state_dict())
    assert layer.gamma.tolist() == [1, 1, 1]
