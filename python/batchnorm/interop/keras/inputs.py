# SPDX-License-Identifier: Apache-2.0
"""Inputs of the Keras layer's calls: tensors of its compute dtype, and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._core.arrays import Array, plain


def converted(value: ArrayLike, name: str, dtype: np.dtype[Any]) -> Array:
    """`value` as an array of this dtype; the same array, if it is one."""
    array = plain(value, name)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} of dtype {array.dtype} cannot become {dtype}: expected real numbers")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(dtype)


def positions(mask: ArrayLike, x: Array, axis: int) -> NDArray[np.bool_]:
    """A mask as weights: with a last axis, that of x's channels if it is their last."""
    array = plain(mask, "mask")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"mask has dtype {array.dtype}, expected bool or real numbers")
    expected = tuple(1 if a == axis else n for a, n in enumerate(x.shape[:-1]))
    if array.ndim != len(expected) or any(n not in (1, m) for n, m in zip(array.shape, expected)):
        reason = "the inputs' without the last axis" + ("" if axis == x.ndim - 1 else ", and 1 for the channels")
        raise ValueError(f"mask has shape {array.shape}, expected {expected}: {reason}")
    return np.expand_dims(array != 0, -1)
