# SPDX-License-Identifier: Apache-2.0
"""Conversion of float64 to the dtype of a parameter, rounded once, and errors about values that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Doubles
from .layout import code_of
from .structs import DType


def cast(values: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """A new array of this dtype, rounded to nearest, ties to even; values beyond its range are infinite."""
    with np.errstate(all="ignore"):
        twice = code_of(dtype) == DType.BFLOAT16 and values.dtype == np.float64
        result: Array = (_odd(values) if twice else values).astype(dtype)
    return result


def rounded(values: Doubles, dtype: np.dtype[Any], name: str) -> Array:
    """The same, but a ValueError if a value is beyond the dtype."""
    result = cast(values, dtype)
    beyond = ~np.isfinite(result)
    if beyond.any():
        raise ValueError(f"{name} becomes {values[index_of(beyond)]:g} at {place(beyond)}, which {dtype} cannot hold")
    return result


def _odd(values: Doubles) -> NDArray[np.float32]:
    """float32 whose rounding to bfloat16 is that of `values`: what is not exact is cut off and made odd.

    A cast from float64 to bfloat16 goes by way of float32, and what float32 rounds to a tie would be rounded again (S.
    Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums", 2008, has the proof that odd is right).
    """
    narrow = values.astype(np.float32)
    bits = narrow.view(np.uint32)
    inexact, too_far = narrow != values, abs(narrow) > abs(values)
    bits -= too_far & np.isfinite(values)
    bits |= inexact & np.isfinite(values)
    return narrow


def finite(values: NDArray[Any], name: str) -> None:
    """ValueError with the first place, unless all values are finite."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(f"{name} is {float(values[index_of(wrong)])} at {place(wrong)}, expected a finite number")


def index_of(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    """The index of the first element that is true."""
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def place(wrong: NDArray[np.bool_]) -> str:
    """The same in words; an array of one axis is of channels."""
    index = index_of(wrong)
    return f"channel {index[0]}" if len(index) == 1 else f"index {index}"
