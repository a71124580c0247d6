# SPDX-License-Identifier: Apache-2.0
"""Conversion of what frameworks keep in place of a variance to a variance and an eps that give the same, and back.

::

    "variance"   v                    sqrt(v + eps)
    "outside"    v                    sqrt(v) + eps  =  sqrt((v + 2 eps sqrt(v)) + eps**2)
    "inverse"    r                    1 / r          =  sqrt((r**-2 - eps) + eps)

All of it is computed in float64 and rounded once, to float32 or float64. The rounded part is most of the sum under the
root, or little of it, so that the root is right to a unit of the last place; where it is not, as the variance is beyond
the dtype's range, that is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import Doubles
from .._core.rounding import index_of, place


def as_variance(values: Doubles, spread: str, eps: float, key: str) -> tuple[Doubles, float]:
    """The variance and the eps under the root, of what is kept under a key; checked where that is no variance."""
    if spread == "inverse":
        _check(np.isfinite(values) & (values > 0), values, key, "finite numbers above 0")
        with np.errstate(over="ignore"):
            return values**-2.0 - eps, eps
    if spread == "outside":
        _check(np.isfinite(values) & (values >= 0), values, key, "finite numbers of at least 0")
        return values + 2 * eps * np.sqrt(values), eps * eps
    return values, eps


def from_variance(variance: Doubles, spread: str, eps: float, told: float, key: str) -> Doubles:
    """The values that a framework keeps as "inverse" or "outside", if it has the eps `told` in its own sense."""
    under = variance + eps
    if spread == "inverse":
        _check(np.isfinite(under) & (under > 0), variance, key, f"finite numbers above -eps ({0 - eps:g})")
        return under**-0.5
    _check(
        np.isfinite(under) & (under >= told * told), variance, key, f"finite numbers of at least {told * told - eps:g}"
    )
    return (np.sqrt(under) - told) ** 2


def check_rounded(array: NDArray[Any], exact: Doubles, eps: float, key: str) -> None:
    """ValueError unless the root is right after the variance was rounded."""
    with np.errstate(invalid="ignore"):  # a sum below 0 is an error of its own
        wanted, root = np.sqrt(exact + eps), np.sqrt(array.astype(np.float64) + eps)
    wrong = abs(root - wanted) > wanted * 2.0**-20
    if wrong.any():
        raise ValueError(
            f"{key} makes a variance of {exact[index_of(wrong)]:g} at {place(wrong)}, beyond {array.dtype}"
        )


def _check(right: NDArray[np.bool_], values: Doubles, key: str, expected: str) -> None:
    if not right.all():
        value = f"{values[index_of(~right)]:g} in {place(~right)}"
        raise ValueError(f"{key} is {value}, expected {expected}")
