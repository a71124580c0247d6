# SPDX-License-Identifier: Apache-2.0
"""Moments beside the oracle."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import oracle
from oracle import rows

import batchnorm as bn

Array = np.ndarray[Any, Any]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def check(found: bn.Moments, x: Array, axes: tuple[int, ...], w: Array | None = None) -> None:
    """Against the sums of the definition, in the longest floats. `w` is of a row's values."""
    exact = rows(x, axes)
    count, mean, var = oracle.moments(exact[None], np.ones((1, exact.shape[1])) if w is None else w.reshape(1, -1))
    assert found.count.dtype == found.mean.dtype == found.m2.dtype == np.float64
    assert found.count.shape == found.mean.shape == found.m2.shape == tuple(x.shape[a] for a in axes)
    most = max(float(abs(exact).max()), 1e-300)
    assert np.allclose(found.count, float(count), rtol=1e-14, atol=0)
    assert (abs(found.mean.ravel() - mean) <= 8 * 2.0**-53 * most).all()
    # Each merge rounds the squared difference of two means.
    assert (abs(found.m2.ravel() - count * var) <= 64 * 2.0**-53 * count * (var + most * np.sqrt(var))).all()


def unchanged(seen: bn.Moments, before: list[Array]) -> None:
    for now, old in zip(seen, before):
        assert np.array_equal(now, old)
