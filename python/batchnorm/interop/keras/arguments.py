# SPDX-License-Identifier: Apache-2.0
"""Arguments of the Keras layer, one by one, checked: dtype policies, initializers, the limits of renorm."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Union

import numpy as np

from ..._core.arrays import Array, Doubles, doubles
from ..._core.options import number
from ..._core.rounding import cast

# "zeros", "ones", a number or an array, or what makes an array of a shape and a dtype.
Initializer = Union[str, float, Doubles, Callable[..., Any]]

# Keras's names, each with the dtype of x and y and that of the weights.
POLICIES = {
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "float16": ("float16", "float16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "mixed_float16": ("float16", "float32"),
    "mixed_bfloat16": ("bfloat16", "float32"),
}


def policy_of(dtype: Any) -> str:
    """The name of a dtype policy, from a name, a dtype, or a policy of Keras's, as an object or as in a config."""
    if dtype is None:
        return "float32"
    config = dtype.get("config") if isinstance(dtype, Mapping) else None
    name = config.get("name") if isinstance(config, Mapping) else dtype
    if not isinstance(name, str):
        name = getattr(name, "name", getattr(name, "__name__", None))
    if name not in POLICIES:
        raise TypeError(f"dtype is {dtype!r}, expected one of {', '.join(map(repr, POLICIES))}")
    return str(name)


def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy's dtype of this name; that of bfloat16 is in another package."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        bfloat16: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        raise ImportError("dtype 'bfloat16' needs the package ml_dtypes, which has it for NumPy") from None
    return bfloat16


def fraction(value: Any, name: str) -> float:
    """A weight of the old average."""
    result = number(value, name)
    if not 0 <= result <= 1:
        raise ValueError(f"{name} is {result}, expected a number from 0 to 1")
    return result


def clipping_of(given: Any) -> dict[str, float] | None:
    """The limits of r and d that there are. None among them stands for no limit, as in Keras."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"renorm_clipping is of type {type(given).__name__}, expected a dict")
    limits = {}
    for key, value in given.items():
        if key not in ("rmin", "rmax", "dmax"):
            raise ValueError(f"renorm_clipping has a key {key!r}, expected 'rmin', 'rmax' or 'dmax'")
        if value is not None:
            limits[key] = number(value, f"{key} of renorm_clipping")
            if not limits[key] >= 0:
                raise ValueError(f"{key} of renorm_clipping is {limits[key]}, expected at least 0")
    if limits.get("rmin", 0.0) > limits.get("rmax", math.inf):
        raise ValueError(f"rmin of renorm_clipping is {limits['rmin']}, expected at most its rmax, {limits['rmax']}")
    return limits


def initializer_of(value: Any, name: str) -> Initializer:
    """An initializer in one of its forms; a Zeros, Ones or Constant in a config of Keras's becomes one of them."""
    expected = "expected 'zeros', 'ones', a number, an array, or a function of shape and dtype"
    if isinstance(value, Mapping):
        kind, config = value.get("class_name"), value.get("config")
        if kind == "Constant" and isinstance(config, Mapping) and not isinstance(config.get("value"), Mapping):
            return initializer_of(config.get("value"), name)
        if kind not in ("Zeros", "Ones"):
            raise ValueError(f"{name} is the config of {kind!r}, expected that of Zeros, Ones or Constant")
        value = kind
    if isinstance(value, str):
        if value.lower() not in ("zeros", "ones"):
            raise ValueError(f"{name} is {value!r}, {expected}")
        return value.lower()
    if callable(value):
        function: Callable[..., Any] = value
        return function
    if value is None:
        raise TypeError(f"{name} is None, {expected}")
    return number(value, name) if np.ndim(value) == 0 else doubles(value, name, np.shape(value)).copy()


def initial(initializer: Initializer, name: str, channels: int, dtype: np.dtype[Any]) -> Array:
    """A new array of one element per channel."""
    value: Any = initializer
    if callable(initializer):
        value = np.asarray(initializer((channels,), dtype=dtype))
    elif isinstance(initializer, str):
        value = float(initializer == "ones")
    if np.ndim(value) == 0:
        value = np.full(channels, number(value, name))
    elif np.shape(value) != (channels,):
        raise ValueError(f"{name} gives shape {np.shape(value)}, expected {(channels,)}: one element per channel")
    return cast(doubles(value, name, (channels,)), dtype)


def config_of(initializer: Initializer, name: str) -> Any:
    """An initializer as JSON and Keras know it."""
    if isinstance(initializer, str):
        return initializer
    if callable(initializer):
        raise TypeError(f"{name} is a function, which a config cannot hold: expected 'zeros', 'ones' or numbers")
    config = {"value": np.asarray(initializer).tolist()}
    return {"module": "keras.initializers", "class_name": "Constant", "config": config, "registered_name": None}
