# SPDX-License-Identifier: Apache-2.0
"""Batch normalization in JAX."""

from . import require  # isort: skip # noqa: F401 - before all that imports jax
from .functional import BatchStatistics, batch_norm, batch_norm_inference

__all__ = ["BatchStatistics", "batch_norm", "batch_norm_inference"]
