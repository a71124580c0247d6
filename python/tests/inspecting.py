# SPDX-License-Identifier: Apache-2.0
"""Layers with something planted, and what `batchnorm inspect` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

Captured = pytest.CaptureFixture[str]
Arrays = dict[str, Any]
RNG = np.random.default_rng(20261214)


def layer(channels: int = 6, axis: int = 1) -> bn.BatchNorm:
    """Trained, as far as can be seen."""
    made = bn.BatchNorm(channels, axis=axis)
    for _ in range(3):
        made(RNG.normal(3, 2, (16, channels)).astype("f4"))
    made.gamma[...] = RNG.uniform(0.5, 1.5, channels)
    made.beta[...] = RNG.normal(size=channels)
    return made


def written(folder: Path, arrays: Arrays, suffix: str = ".npz") -> Path:
    path = folder / f"state{suffix}"
    bn.write_state(path, arrays)
    return path


def plain(name: str = "bn1", **changed: Any) -> Arrays:
    arrays = {key: value.copy() for key, value in layer().state_dict().items()}
    arrays.update(changed)
    return {f"{name}.{key}": value for key, value in arrays.items() if value is not None}


def changed(array: Any, **at: float) -> Any:
    array = np.array(array, np.float32)
    for index, value in at.items():
        array[int(index[1:])] = value
    return array


ONES, MEANS = np.float32([1, 1.5, 2, 1.25, 1, 3]), np.float32([0.5, 1, 2, 0, 0.25, 0.125])
