# SPDX-License-Identifier: Apache-2.0
"""Tensors of other frameworks as arrays, for states, in which gradients do not matter."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import kind_of, plain
from .layout import bfloat16 as bfloat16


def detached(value: Any, name: str) -> NDArray[Any]:
    """The value as NumPy converts it, or would convert it if it knew gradients and bfloat16."""
    given = value
    if value is None:
        raise TypeError(f"{name} is None, expected an array")
    try:
        if hasattr(value, "detach"):  # of PyTorch
            value = value.detach().cpu()
        kind = str(getattr(value, "dtype", None))
        if kind == "torch.bfloat16":
            value = value.float()
        elif kind == "mlx.core.bfloat16":
            value = value.astype(importlib.import_module("mlx.core").float32)
        array = np.asanyarray(value)
    except Exception as error:
        raise TypeError(f"{name} is of type {kind_of(given)}, expected an array: {error}") from error
    array = plain(array, name)
    return array.astype(bfloat16(name)) if kind in ("torch.bfloat16", "mlx.core.bfloat16") else array
