# SPDX-License-Identifier: Apache-2.0
"""batchnorm.jax for whoever reads its docstrings, without JAX and flax: there is a name for each name of them."""

from __future__ import annotations

import importlib
import sys

from sphinx.ext.autodoc.mock import mock


def load() -> None:
    # JAX's functions have no docstrings once these two have wrapped them.
    with mock(["flax", "jax", "batchnorm.jax.derivatives", "batchnorm.jax.inference"]):
        importlib.import_module("jax")
        sys.modules["jax"].__version__ = "0.10"  # type: ignore[attr-defined]
        for room in ("batchnorm.jax", "batchnorm.jax.linen", "batchnorm.jax.nnx"):
            importlib.import_module(room)
