# SPDX-License-Identifier: Apache-2.0
"""JAX on the CPU with float64. Its arrays and NumPy's are taken for each other, bfloat16 included."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from comparing import Array, peer

os.environ["JAX_PLATFORMS"] = "cpu"
jax = peer("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy


def gradients(function: Any, dy: Array, *given: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """Calls function(*given), which gives y and more; returns both, and d sum(dy * y) / d given for each of `given`."""

    def all_of_it(dy: Any, *given: Any) -> Any:
        y, pull_back, other = jax.vjp(function, *given, has_aux=True)
        return y, other, pull_back(dy)

    y, other, found = jax.jit(all_of_it)(dy, *given)  # one compilation instead of one for each operation
    return np.asarray(y), other, jax.tree_util.tree_map(np.asarray, found)
