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


@pytest.mark.parametrize(
    "count", [7, np.int64(7), np.array(7), np.array(7, np.int32), np.array(7, np.uint8), [7], np.float32(7), [[7.0]]]
)
def test_counts(count: Any) -> None:
    layer = bn.BatchNorm(3)
    layer.load_state_dict({**trained().state_dict(), "num_batches_tracked": count})
    assert layer.num_batches_tracked == 7
    assert type(layer.num_batches_tracked) is int


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("kind", [bn.BatchNorm2d, bn.LazyBatchNorm2d])
def test_arrays_with_axes_of_one(kind: Any, shape: tuple[int, ...]) -> None:
    state = trained().state_dict()
    layer = kind(3) if kind is bn.BatchNorm2d else kind()
    layer.load_state_dict({key: value.reshape(shape) if value.ndim else value for key, value in state.items()})
    assert same(layer.state_dict(), state)


def test_a_row_per_group_is_not_flattened() -> None:
    layer = bn.BatchNorm(3, groups=bn.Split(1))
    state = layer.state_dict()
    assert state["running_mean"].shape == (1, 3)
    layer.load_state_dict({**state, "num_batches_tracked": np.array([4.0])})
    assert layer.num_batches_tracked.tolist() == [4]
    assert layer.num_batches_tracked.dtype == np.int64
    with pytest.raises(ValueError, match=r"running_mean has shape \(3,\), expected \(1, 3\)"):
        layer.load_state_dict({**state, "running_mean": np.zeros(3, "f4")})


def test_parameters_may_be_any_numbers() -> None:
    layer = bn.BatchNorm(3)
    layer.load_state_dict({**trained().state_dict(), "weight": np.float32([np.nan, np.inf, 0])})
    assert np.isnan(layer.gamma[0])


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
        ({"running_var": np.ones((3, 2), "f4")}, ValueError, r"running_var has shape \(3, 2\), expected \(3,\)"),
        ({"running_mean": np.float32([0, np.nan, 0])}, ValueError, "running_mean is nan in channel 1, expected finite"),
        ({"running_mean": np.float32([0, 0, -np.inf])}, ValueError, "running_mean is -inf in channel 2"),
        ({"running_var": np.float32([np.inf, 1, 1])}, ValueError, "running_var is inf in channel 0, expected finite"),
        ({"running_var": np.float32([1, np.nan, 1])}, ValueError, "running_var is nan in channel 1"),
        ({"running_var": np.float32([1, 1, -2e-5])}, ValueError, r"running_var is -2e-05 in .* -eps \(-1e-05\)"),
        ({"running_var": np.ones(3)}, TypeError, "running_var has dtype float64, expected float32"),
        ({"bias": None}, TypeError, "bias is None, expected an array"),
        ({"num_batches_tracked": 1.5}, ValueError, "num_batches_tracked is 1.5, expected a whole number"),
        ({"num_batches_tracked": np.nan}, ValueError, "num_batches_tracked is nan, expected a whole number"),
        ({"num_batches_tracked": True}, TypeError, "num_batches_tracked has dtype bool"),
        ({"num_batches_tracked": 2**63}, ValueError, "num_batches_tracked is 9223372036854775808, expected at least"),
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
    layer.running_mean[...] = [1, 2, 3]  # which will do as variances
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
