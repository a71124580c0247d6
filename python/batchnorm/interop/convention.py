# SPDX-License-Identifier: Apache-2.0
"""The names that a framework has for the arrays and settings of its batch normalization, and their meanings."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._core.options import flag, number

# The names of the arrays here, in the order in which all frameworks list theirs.
AFFINE = "gamma", "beta"
RUNNING = "running_mean", "running_var"
ARRAYS = AFFINE + RUNNING
COUNT = "num_batches_tracked"
FACTOR = "scale_factor"  # which Caffe divides its sums by

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
        True if its running variance takes the variance over M - 1, False if over M.
    axis : int
        Its channel axis, or the default of it.
    eps_name : str, default "epsilon"
    momentum_names : tuple of str, default ("momentum",)
        Its names for momentum, which may be several.
    sense : str, default "old"
        Its sense of momentum: the weight of the "old" average, that of the "new" batch, or the "window", its inverse.
    spread : str, default "variance"
        What it keeps as running_var: the "variance"; the variance, to whose root eps is added "outside"; or the
        "inverse" of sqrt(variance + eps).
    separator : str, default "/"
        Between the name of a layer and that of an array.
    flags : mapping of str to tuple of str
        Settings that say which arrays there are: those of a flag are all there, or none of them is. Arrays without a
        flag are always there.
    beta_needs_gamma : bool, default False
    takes_num_features, takes_axis, takes_axes : bool, default False
        True if these are settings of the layer: the number of channels, the axis, and several axes as one.
    takes_zero_eps : bool, default True
    takes_cumulative : bool, default False
        True if momentum may be None, the cumulative average.
    joins : bool, default False
        True if names may contain the separator, so that only the whole of a prefix counts.
    heads : tuple of str, default ()
        What may stand before a key, as "arg:".
    aliases : mapping of str to str
        Other spellings of names.
    passed_over : tuple of str, default ()
        Names beside the arrays that say nothing of them.
    fixed_gamma : tuple of (str, bool, bool), optional
        A setting, which value of it has gamma count as 1, whatever it holds, and the default of it.
    has_factor : bool, default False
        True if mean and variance are sums, to be divided by an array of one number.
    moves_eps : str, default ""
        A setting that says that eps stands under the root after all.
    """

    framework: str
    keys: Mapping[str, str]
    eps: float
    momentum: float
    unbiased: bool
    axis: int
    eps_name: str = "epsilon"
    momentum_names: tuple[str, ...] = ("momentum",)
    sense: str = "old"
    spread: str = "variance"
    separator: str = "/"
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beta_needs_gamma: bool = False
    takes_num_features: bool = False
    takes_axis: bool = False
    takes_axes: bool = False
    takes_zero_eps: bool = True
    takes_cumulative: bool = False
    joins: bool = False
    heads: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    fixed_gamma: tuple[str, bool, bool] | None = None
    has_factor: bool = False
    moves_eps: str = ""

    def key(self, name: str, prefix: str) -> str:
        """The key of an array of the layer at `prefix`, which may end in a separator."""
        collection, _, own = self.keys[name].rpartition("/")
        layer = prefix if not prefix or prefix[-1] in "./" + self.separator else prefix + self.separator
        return f"{collection}/{layer}{own}" if collection else layer + own

    def paths(self, name: str, prefix: Path) -> list[Path]:
        """The same in parts, as path_of() has them; with a separator that names have, too, also as one part."""
        *collection, own = self.keys[name].split("/")
        paths = [(*collection, *prefix, own)]
        if self.joins and prefix:
            joined = prefix[-1] if prefix[-1].endswith(self.separator) else prefix[-1] + self.separator
            paths.append((*prefix[:-1], joined + own))
        return paths

    def layer_at(self, path: Path) -> Path | None:
        """The layer whose running_mean is at this path, if it is one."""
        *collection, own = self.keys["running_mean"].split("/")
        layer = path[len(collection) : -1]
        if path == (*collection, *layer, own):
            return layer
        if self.joins and path and path[-1].endswith(self.separator + own):
            return (*path[:-1], path[-1][: -len(self.separator + own)])
        return None

    def is_below(self, path: Path, layer: Path) -> bool:
        """True if this path lies below that of the layer, which may lack the name of a collection in front."""
        path = path[1:] if "/" in self.keys["running_mean"] else path
        return path[: len(layer)] == layer

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
        """eps and momentum in the senses that they have here, from checked settings."""
        extra = [self.fixed_gamma[0]] if self.fixed_gamma else []
        switches = [*self.flags, *extra, *([self.moves_eps] if self.moves_eps else [])]
        known = ["num_features"] * self.takes_num_features + [*self.momentum_names, self.eps_name, *switches]
        for name, value in settings.items():
            if name not in known:
                raise TypeError(
                    f"{name} is none of the settings that count of a {self.framework} layer: {', '.join(known)}"
                )
            if name in switches:
                flag(value, name)
        if not isinstance(settings.get("num_features", 0), (int, np.integer)):
            raise TypeError(f"num_features is {settings['num_features']!r}, expected an int")
        eps = number(settings.get(self.eps_name, self.eps), self.eps_name)
        if not 0 <= eps < math.inf:
            raise ValueError(f"{self.eps_name} is {eps}, expected a finite number of at least 0")
        return eps, self._weight_of_new(settings)

    def _weight_of_new(self, settings: Mapping[str, Any]) -> float | None:
        told = [name for name in self.momentum_names if name in settings]
        if len(told) > 1:
            raise TypeError(f"{told[0]} and {told[1]} are two words for one setting, expected one of them")
        name = told[0] if told else self.momentum_names[0]
        momentum = settings.get(name, self.momentum)
        if momentum is None and self.takes_cumulative:
            return None
        momentum = number(momentum, name)
        if self.sense == "window":
            if not 1 <= momentum < math.inf:
                raise ValueError(f"{name} is {momentum:g}, expected a number of batches, at least 1")
            return 1.0 / momentum
        if not 0 <= momentum <= 1:
            raise ValueError(f"{name} is {momentum}, expected a number from 0 to 1")
        return 1.0 - momentum if self.sense == "old" else momentum


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
