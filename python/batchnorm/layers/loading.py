# SPDX-License-Identifier: Apache-2.0
"""Rules for the values of a state, which from_state() and load_state_dict() share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C,) for (1, C, 1, 1) and the like; a shape that could mean something else is returned as it is."""
    lengths = [length for length in shape if length != 1]
    return shape if len(shape) < 2 or len(lengths) > 1 else (math.prod(shape),)


def per_channel(array: NDArray[Any]) -> NDArray[Any]:
    """The array in that shape."""
    return array.reshape(flat(array.shape))


def check_running(mean: NDArray[Any] | None, var: NDArray[Any] | None, eps: float, keys: tuple[str, str]) -> None:
    """ValueError unless means are finite, and variances finite and at least -eps.

    A variance that is the difference of two averages may be a little below 0, and published weights have such; what
    evaluation takes the root of is var + eps.
    """
    for array, key, least in ((mean, keys[0], None), (var, keys[1], eps)):
        if array is None:
            continue
        values = array.astype(np.float64)
        right = np.isfinite(values) if least is None else np.isfinite(values) & (values + least >= 0)
        if not right.all():
            at = np.unravel_index(int(np.argmin(right)), right.shape)
            channel = ", ".join(str(int(index)) for index in at)
            expected = "finite numbers" if least is None else f"finite numbers of at least -eps ({0 - least:g})"
            raise ValueError(f"{key} is {values[at]:g} in channel {channel}, expected {expected}")


def whole(array: NDArray[Any], key: str, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
    """num_batches_tracked as numbers of int64: integers, or floats that are whole. One number may have any axes.

    7.5, an average of counts, is an error: PyTorch makes 7 of it without a word.
    """
    if not shape and array.size == 1:
        array = array.reshape(())
    if array.shape != shape:
        raise ValueError(f"{key} has shape {array.shape}, expected {shape}")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{key} has dtype {array.dtype}, expected int64")
    for value in array.ravel().tolist():
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"{key} is {value}, expected a whole number")
        if not 0 <= value < 2**63:
            raise ValueError(f"{key} is {value}, expected at least 0 and a number of int64")
    return array.astype(np.int64)
