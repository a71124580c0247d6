# SPDX-License-Identifier: Apache-2.0
"""The C functions of a layer by ctypes, each with the order of its arguments in one place.

Tensors and arrays go by address; gamma and beta also as bytes, which are kept by whoever calls.
"""

from __future__ import annotations

from typing import Any

from .._core.layout import Plan
from .._core.library import lib
from .._core.structs import Options

Pair = tuple[Any, Any]


def forward_training(
    fit: Plan, x: int | None, parameters: Pair, running: Pair, y: int | None, saved: Pair, told: Options
) -> None:
    """y; mean and invstd into `saved`; and new running statistics in place."""
    lib.bn_forward_training(fit.shape, fit.code, x, *parameters, *running, y, *saved, told)


def forward_inference(
    fit: Plan, x: int | None, parameters: Pair, running: Pair, y: int | None, saved: Pair, told: Options
) -> None:
    """y; and mean and invstd into `saved`, if it has addresses."""
    lib.bn_forward_inference(fit.shape, fit.code, x, *parameters, *running, y, *saved, told)


def backward(
    fit: Plan,
    dy: int | None,
    x: int | None,
    parameters: Pair,
    saved: Pair,
    dx: int | None,
    gradients: Pair,
    told: Options,
) -> None:
    """dx; and dgamma and dbeta into `gradients`, as far as it has addresses."""
    lib.bn_backward(fit.shape, fit.code, dy, x, *parameters, *saved, dx, *gradients, told)


def normalize(fit: Plan, x: int | None, parameters: Pair, statistics: Pair, y: int | None, told: Options) -> None:
    """The y of statistics that are given."""
    lib.bn_normalize(fit.shape, fit.code, x, *parameters, *statistics, y, told)
