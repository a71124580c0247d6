# SPDX-License-Identifier: Apache-2.0
"""jvp() and double_backward(): what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import batchnorm as bn

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x_tangent": np.zeros((4, 3, 9), np.float32)}, ValueError, r"x_tangent has shape \(4, 3, 9\), expected"),
        ({"x_tangent": np.zeros((4, 3, 10))}, TypeError, "x_tangent has dtype float64, expected float32"),
        ({"gamma_tangent": np.zeros(4, np.float32)}, ValueError, r"gamma_tangent has shape \(4,\), expected \(3,\)"),
        ({"beta_tangent": np.zeros(3, complex)}, TypeError, "beta_tangent has dtype complex128, expected real numbers"),
        ({"saved": None}, TypeError, "saved is of type NoneType"),
        ({"out": np.zeros((4, 3, 9), np.float32)}, ValueError, "out has shape"),
        ({"axis": 5}, ValueError, "axis"),
    ],
)
def test_refused_by_jvp(change: dict[str, Any], error: type[Exception], message: str) -> None:
    x = np.zeros((4, 3, 10), np.float32)
    given = {"x": x, "saved": bn.forward_training(x)[1], "x_tangent": x, **change}
    with pytest.raises(error, match=message):
        bn.jvp(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad_dx": np.zeros((4, 3, 9), np.float32)}, ValueError, r"grad_dx has shape \(4, 3, 9\), expected"),
        ({"dy": np.zeros((4, 3, 10))}, TypeError, "dy has dtype float64, expected float32"),
        ({"grad_dgamma": np.zeros(4, np.float32)}, ValueError, r"grad_dgamma has shape \(4,\), expected \(3,\)"),
        ({"grad_dbeta": np.zeros(3, complex)}, TypeError, "grad_dbeta has dtype complex128, expected real numbers"),
        (
            {"gamma": np.full(3, 2, np.float32)},
            ValueError,
            "gamma is 2 in channel 0, expected 1, as the forward call had no",
        ),
        ({"axis": 2}, ValueError, "axis is 2, expected 1, the axis of the forward call"),
        ({"saved": bn.frozen_statistics(np.zeros(4), np.ones(4))}, ValueError, "saved is of 4 channels, but x has 3"),
    ],
)
def test_refused_by_double_backward(change: dict[str, Any], error: type[Exception], message: str) -> None:
    x = np.zeros((4, 3, 10), np.float32)
    given = {"dy": x, "x": x, "saved": bn.forward_training(x)[1], **change}
    with pytest.raises(error, match=message):
        bn.double_backward(**given)


@pytest.mark.parametrize(
    "told",
    [
        {"activation": "relu"},
        {"residual": np.zeros((4, 3, 10))},
        {"weights": np.ones((4, 10))},
        {"groups": bn.Ghost(2)},
        {"source": bn.Blend(1.0), "running_mean": np.zeros(3), "running_var": np.ones(3)},
    ],
)
def test_calls_that_were_told_more_are_refused(rng: np.random.Generator, told: dict[str, Any]) -> None:
    x = rng.normal(size=(4, 3, 10))
    _, saved = bn.forward_training(x, **told)
    assert not saved.is_plain
    with pytest.raises(ValueError, match="saved is of a call with an activation, weights, groups or a source"):
        bn.jvp(x, saved, x_tangent=x)
    with pytest.raises(ValueError, match="saved is of a call with an activation, weights, groups or a source"):
        bn.double_backward(x, x, saved, grad_dx=x)


def test_a_call_with_a_policy_is_plain(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 10))
    statistics = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    _, saved = bn.forward_training(x, **statistics, running=bn.Running(nonfinite="skip"))
    assert saved.is_plain
    wanted = bn.jvp(x, bn.forward_training(x)[1], x_tangent=x**2)
    assert bn.jvp(x, saved, x_tangent=x**2).tobytes() == wanted.tobytes()
