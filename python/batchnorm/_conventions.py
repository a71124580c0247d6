# SPDX-License-Identifier: Apache-2.0
"""What frameworks call the arrays and the settings of their batch normalizations, and what they mean by them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._options import flag, number

# What the arrays are here, in the order in which all frameworks list theirs.
AFFINE = "gamma", "beta"
RUNNING = "running_mean", "running_var"
ARRAYS = AFFINE + RUNNING
COUNT = "num_batches_tracked"

Path = tuple[str, ...]


@dataclass(frozen=True)
class Convention:
    """A framework's batch normalization.

    Parameters
    ----------
    framework : str
    keys : mapping of str to str
        The name of each array. A part before a slash is a collection, which stands before the layer's own name.
    eps, momentum : float
        Its defaults, in its own sense.
    unbiased : bool
        Whether its running variance takes the variance over M - 1 or over M.
    axis : int
        Its channel axis, or the default of it.
    eps_name : str, default "epsilon"
    is_decay : bool, default True
        Whether its momentum is the weight of the old average.
    separator : str, default "/"
        Between the name of a layer and that of an array.
    flags : mapping of str to tuple of str
        Settings that say which arrays there are: those of a flag are all there, or none of them is. Arrays without a
        flag are always there.
    beta_needs_gamma : bool, default False
    takes_num_features, takes_axis, takes_axes : bool, default False
        Whether these are settings of the layer: the number of channels, the axis, and several axes as one.
    takes_zero_eps : bool, default True
    takes_cumulative : bool, default False
        Whether momentum may be None, the cumulative average.
    """

    framework: str
    keys: Mapping[str, str]
    eps: float
    momentum: float
    unbiased: bool
    axis: int
    eps_name: str = "epsilon"
    is_decay: bool = True
    separator: str = "/"
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beta_needs_gamma: bool = False
    takes_num_features: bool = False
    takes_axis: bool = False
    takes_axes: bool = False
    takes_zero_eps: bool = True
    takes_cumulative: bool = False

    def key(self, name: str, prefix: str) -> str:
        """The key of an array of the layer at `prefix`, which may end in a separator."""
        collection, _, own = self.keys[name].rpartition("/")
        layer = prefix if not prefix or prefix[-1] in "./" else prefix + self.separator
        return f"{collection}/{layer}{own}" if collection else layer + own

    def path(self, name: str, prefix: Path) -> Path:
        """The same in parts, as path_of() has them."""
        *collection, own = self.keys[name].split("/")
        return (*collection, *prefix, own)

    def layer_of(self, path: Path) -> Path:
        """The path without what may be a collection: it begins with the path of the layer."""
        return path[1:] if "/" in self.keys["running_mean"] else path

    def needed(self, there: Collection[str]) -> dict[str, str]:
        """The arrays of a layer that has these: each with the one that asks for it, or "" if every layer has it."""
        flagged = {name for names in self.flags.values() for name in names}
        needed = {name: "" for name in self.keys if name not in flagged}
        for names in self.flags.values():
            for asking in [name for name in names if name in there][:1]:
                needed.update(dict.fromkeys(names, asking))
        if self.beta_needs_gamma and "beta" in there:
            needed["gamma"] = "beta"
        needed.pop(COUNT, None)  # older states have none
        return needed

    def senses(self, settings: Mapping[str, Any]) -> tuple[float, float | None]:
        """eps and momentum as they are here, from settings that are checked."""
        known = ["num_features"] * self.takes_num_features + ["momentum", self.eps_name, *self.flags]
        for name, value in settings.items():
            if name not in known:
                raise TypeError(
                    f"{name} is none of the settings that count of a {self.framework} layer: {', '.join(known)}"
                )
            if name in self.flags:
                flag(value, name)
        if not isinstance(settings.get("num_features", 0), (int, np.integer)):
            raise TypeError(f"num_features is {settings['num_features']!r}, expected an int")
        eps = number(settings.get(self.eps_name, self.eps), self.eps_name)
        if not 0 <= eps < math.inf:
            raise ValueError(f"{self.eps_name} is {eps}, expected a finite number of at least 0")
        momentum = settings.get("momentum", self.momentum)
        if momentum is None and self.takes_cumulative:
            return eps, None
        momentum = number(momentum, "momentum")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}, expected a number from 0 to 1")
        return eps, 1.0 - momentum if self.is_decay else momentum


def path_of(key: Any) -> Path:
    """A key in parts: "layer1.0.bn2", "layer1/0/bn2" and ("layer1", 0, "bn2") are one."""
    if isinstance(key, str):
        return tuple(part for part in re.split("[./]", key) if part)
    if isinstance(key, int):
        return (str(key),)
    if isinstance(key, tuple):
        return tuple(part for each in key for part in path_of(each))
    raise TypeError(f"the key {key!r} is of type {type(key).__name__}, expected a text")


def as_prefix(prefix: Any) -> str:
    """A prefix, if it is a text."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is of type {type(prefix).__name__}, expected a text")
    return prefix


def convention_of(framework: Any) -> Convention:
    """The convention of the framework of this name."""
    for convention in CONVENTIONS:
        if convention.framework == framework:
            return convention
    names = ", ".join(repr(convention.framework) for convention in CONVENTIONS)
    raise ValueError(f"framework is {framework!r}, expected one of {names}")


_PYTORCH = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_NNX = {"gamma": "scale", "beta": "bias", "running_mean": "mean", "running_var": "var"}
_FLAX_FLAGS = {"use_scale": ("gamma",), "use_bias": ("beta",)}

CONVENTIONS = (
    Convention(
        "pytorch",
        {**_PYTORCH, COUNT: COUNT},
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=1,
        eps_name="eps",
        is_decay=False,
        separator=".",
        flags={"affine": ("gamma",), "bias": ("beta",), "track_running_stats": (*RUNNING, COUNT)},
        beta_needs_gamma=True,
        takes_num_features=True,
        takes_cumulative=True,
    ),
    Convention(
        "keras",
        {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
        eps=1e-3,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags={"scale": ("gamma",), "center": ("beta",)},
        takes_axis=True,
    ),
    Convention(
        "flax",
        {name: f"{'params' if name in AFFINE else 'batch_stats'}/{key}" for name, key in _NNX.items()},
        eps=1e-5,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags=_FLAX_FLAGS,
        takes_axis=True,
        takes_axes=True,
    ),
    Convention(
        "nnx",
        _NNX,
        eps=1e-5,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags=_FLAX_FLAGS,
        takes_num_features=True,
        takes_axis=True,
    ),
    Convention(
        "onnx",  # the inputs of the operator since opset 14
        {"gamma": "scale", "beta": "B", "running_mean": "input_mean", "running_var": "input_var"},
        eps=1e-5,
        momentum=0.9,
        unbiased=False,
        axis=1,
        separator=".",
    ),
    Convention(
        "mlx",
        _PYTORCH,
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=-1,
        eps_name="eps",
        is_decay=False,
        separator=".",
        flags={"affine": AFFINE, "track_running_stats": RUNNING},
        takes_num_features=True,
        takes_zero_eps=False,
    ),
)
