# SPDX-License-Identifier: Apache-2.0
"""A framework's arrays as a layer has them: sums are divided, variances computed, and all rounded once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core.layout import dtype_of, parameter_dtype
from .._core.options import number
from .._core.rounding import cast
from . import spreads
from .convention import FACTOR, RUNNING, Convention


def drop_fixed_gamma(
    arrays: dict[str, NDArray[Any]], found: Mapping[str, Any], convention: Convention, settings: Mapping[str, Any]
) -> None:
    """The arrays without a gamma that counts as 1."""
    if not convention.fixed_gamma or "gamma" not in arrays:
        return
    name, fixing, default = convention.fixed_gamma
    if bool(settings.get(name, default)) != fixing:
        return
    if name not in settings and not (arrays["gamma"] == 1).all():
        raise ValueError(
            f"{found['gamma'].key} is not 1 in every channel, but counts as 1 where {name} is {fixing}, "
            f"which is the default: tell {name}={fixing} or {name}={not fixing}"
        )
    del arrays["gamma"]


def divide(arrays: dict[str, NDArray[Any]], factor: float, found: Mapping[str, Any]) -> None:
    """Turns sums into means; sums of no values become 0."""
    for name in RUNNING:
        values = arrays[name].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            arrays[name] = values / factor if factor else values * 0
        if np.isfinite(values).all() and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{found[name].key} divided by {found[FACTOR].key}, {factor:g}, is beyond float64")


def take_variance(
    arrays: dict[str, NDArray[Any]],
    key: str,
    convention: Convention,
    settings: Mapping[str, Any],
    eps: float,
    factor: float,
) -> float:
    """running_var becomes a variance; returns the eps that goes with it."""
    spread = "variance" if settings.get(convention.moves_eps) else convention.spread
    values = arrays["running_var"].astype(np.float64)
    with np.errstate(over="ignore"):  # as_parameter() looks at what becomes of it
        if spread != "inverse":
            values = values * factor
        values, eps = spreads.as_variance(values, spread, eps, key)
        arrays["running_var"] = values * factor if spread == "inverse" else values
    return eps


def as_parameter(array: NDArray[Any], given: NDArray[Any], dtype: np.dtype[Any], factor: float, key: str) -> Any:
    """A copy in the dtype, rounded once; an error if what was given is finite, and this is not."""
    result = np.array(cast(array, dtype) if array.dtype == np.float64 else array, dtype, order="C")
    beyond = ~np.isfinite(result)
    if array is not given and (beyond & np.isfinite(given)).any():
        why = f"times {factor:g}, which makes it unbiased, is" if factor != 1 else "becomes a number"
        raise ValueError(f"{key} {why} beyond {dtype}")
    return result


def dtypes_of(of_arrays: np.dtype[Any], dtype: DTypeLike | None) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtypes of x and of the parameters: the arrays' own if it goes with that of x, or a wider one that does."""
    if dtype is None:
        return of_arrays, of_arrays
    wanted = dtype_of(dtype, "dtype")
    for each in (wanted, parameter_dtype(wanted)):
        if np.can_cast(of_arrays, each):
            return wanted, each
    raise TypeError(f"dtype is {wanted}, but the arrays are of {of_arrays}: digits would be lost")


def bessel(is_unbiased: bool, unbiased: bool, count: float | None) -> float:
    """The factor that makes a variance unbiased, or biased, if the number of values is known."""
    if count is None:
        return 1.0
    count = number(count, "count")
    if not 1 < count < math.inf:
        raise ValueError(f"count is {count}, expected a finite number above 1: the values per channel of a batch")
    if bool(is_unbiased) == bool(unbiased):
        return 1.0
    return count / (count - 1) if unbiased else (count - 1) / count
