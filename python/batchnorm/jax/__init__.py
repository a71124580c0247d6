# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for JAX on the CPU, with derivatives. It needs JAX 0.10 or newer.

>>> import jax, jax.numpy as jnp
>>> import batchnorm.jax as bj
>>> x = 30_000 + jax.random.normal(jax.random.key(0), (64, 3))
>>> y, statistics = jax.jit(bj.batch_norm)(x)
>>> statistics.mean.shape, bool(jnp.allclose(y.std(axis=0), 1, atol=1e-4))
((3,), True)

- `batch_norm` and `batch_norm_inference` are functions of arrays, under every transform of JAX.
- `linen.BatchNorm` and `nnx.BatchNorm` are flax's layers, trained by this library. The two modules need flax, which is
  imported when one of them is used.
"""

import importlib as _importlib

from . import require  # isort: skip # noqa: F401 - before all that imports jax
from .functional import BatchStatistics, batch_norm, batch_norm_inference

__all__ = ["BatchStatistics", "batch_norm", "batch_norm_inference"]


def __getattr__(name: str) -> object:
    """The modules that need flax, at their first use."""
    if name not in ("linen", "nnx"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
