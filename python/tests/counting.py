# SPDX-License-Identifier: Apache-2.0
"""Moments beside the oracle."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import reference

import batchnorm as bn

Array = np.ndarray[Any, Any]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def check(found: bn.Moments, x: Array, axes: tuple[int, ...], w: Array | None = None) -> None:
    """Against the sums of the definition, in the longest floats. `w` is of x's shape."""
    x, over = x.astype(reference.Real), tuple(a for a in range(x.ndim) if a not in axes)
    w = np.ones(x.shape, reference.Real) if w is None else w.astype(reference.Real)
    count = w.sum(over)
    mean = (w * x).sum(over) / count
    m2 = (w * (x - np.expand_dims(mean, over)) ** 2).sum(over)
    assert found.count.dtype == found.mean.dtype == found.m2.dtype == np.float64
    assert found.count.shape == found.mean.shape == found.m2.shape == count.shape
    most = max(float(abs(x).max()), 1e-300)
    assert np.allclose(found.count.astype(float), count.astype(float), rtol=1e-14, atol=0)
    assert (abs(found.mean - mean) <= 8 * 2.0**-53 * most).all()
    # Each merge rounds the squared difference of two means.
    assert (abs(found.m2 - m2) <= 64 * 2.0**-53 * (m2 + most * np.sqrt(m2 * count))).all()


def unchanged(seen: bn.Moments, before: list[Array]) -> None:
    for now, old in zip(seen, before):
        assert np.array_equal(now, old)
