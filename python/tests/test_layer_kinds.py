# SPDX-License-Identifier: Apache-2.0
"""Layers of every kind: arguments, ranks, groups of channel axes, and how they print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import batchnorm as bn


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0"),
        ({"num_features": ()}, ValueError, r"num_features is \(\)"),
        ({"num_features": 2.5}, TypeError, "num_features is 2.5, expected a whole number"),
        ({"num_features": (3, 4)}, ValueError, "as many of one as of the other"),
        ({"axis": (1, 2)}, ValueError, "as many of one as of the other"),
        ({"axis": 1.0}, TypeError, "axis is 1.0, expected an int or a tuple of int"),
        ({"axis": [1]}, TypeError, r"axis is \[1\], expected an int or a tuple of int"),
        ({"num_features": (3, 4), "axis": [1, 2]}, TypeError, "expected an int or a tuple of int"),
        ({"eps": -1}, ValueError, "eps"),
        ({"eps": np.ones(2)}, TypeError, r"eps has shape \(2,\), expected a number"),
        ({"momentum": np.ones(2)}, TypeError, r"momentum has shape \(2,\), expected a number"),
        ({"decay": np.ones(2)}, TypeError, r"decay has shape \(2,\), expected a number"),
        ({"momentum": 2}, ValueError, "momentum"),
        ({"decay": 2}, ValueError, "decay is 2"),
        ({"decay": 0.9, "momentum": 0.1}, ValueError, "give one of them"),
        ({"decay": 0.9, "momentum": None}, ValueError, "give one of them"),
        ({"dtype": np.int16}, TypeError, "dtype is int16"),
        ({"dtype": int}, TypeError, "dtype is int64"),
    ],
)
def test_a_layer_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.BatchNorm(**{"num_features": 3, **arguments})


def test_several_channel_axes(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 3, 5, 2))
    layer = bn.BatchNorm((3, 5), axis=(1, 2), dtype=np.float64)
    flat = bn.BatchNorm(15, dtype=np.float64)
    assert np.array_equal(layer(x), flat(x.reshape(4, 15, 2)).reshape(x.shape))
    assert np.array_equal(layer.backward(dy), flat.backward(dy.reshape(4, 15, 2)).reshape(x.shape))
    assert layer.grad_gamma.shape == layer.running_var.shape == (3, 5)
    with pytest.raises(ValueError, match=r"x has \(3, 4\) channels at axis \(1, 2\), expected \(3, 5\)"):
        layer(x[:, :, :4])


@pytest.mark.parametrize(
    ("kind", "ranks", "expected"),
    [(bn.BatchNorm1d, (2, 3), "2D or 3D"), (bn.BatchNorm2d, (4,), "4D"), (bn.BatchNorm3d, (5,), "5D")],
)
def test_ranks(rng: np.random.Generator, kind: Any, ranks: tuple[int, ...], expected: str) -> None:
    for rank in range(1, 7):
        x = rng.normal(size=(4, 3, 2, 2, 2, 2)[:rank])
        layer = kind(3, dtype=np.float64)
        if rank in ranks:
            assert np.array_equal(layer(x), bn.BatchNorm(3, dtype=np.float64)(x))
        else:
            with pytest.raises(ValueError, match=rf"^expected {expected} input \(got {rank}D input\)($|: )"):
                layer(x)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (bn.BatchNorm2d(64), "BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"),
        (
            bn.BatchNorm((3, 4), 1e-3, None, False, False, np.float64, axis=(1, 2), unbiased=False),
            "BatchNorm((3, 4), axis=(1, 2), eps=0.001, momentum=None, affine=False, track_running_stats=False, "
            "unbiased=False, dtype=float64)",
        ),
        (
            bn.BatchNorm(np.int64(3), np.float32(0.5), np.array(0.25), axis=np.int64(1)),  # type: ignore[arg-type]
            "BatchNorm(3, axis=1, eps=0.5, momentum=0.25, affine=True, track_running_stats=True)",
        ),
        (
            bn.BatchNorm1d(5, decay=0.99),
            "BatchNorm1d(5, eps=1e-05, momentum=0.01, affine=True, track_running_stats=True)",
        ),
    ],
)
def test_repr(layer: bn.BatchNorm, expected: str) -> None:
    assert repr(layer) == expected


def test_weight_and_bias_are_gamma_and_beta() -> None:
    layer = bn.BatchNorm2d(3)
    layer.weight = np.full(3, 5, "f4")
    layer.bias = np.full(3, 7, "f4")
    assert layer.weight is layer.gamma
    assert layer.bias is layer.beta
    y = layer(np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype("f4"))
    assert y.mean() == pytest.approx(7, abs=1e-3)
    assert y.std() == pytest.approx(5, abs=1e-2)
    assert layer.state_dict()["weight"].tolist() == [5, 5, 5]
