# SPDX-License-Identifier: Apache-2.0
"""Suffixes that TensorFlow and Keras write behind the names of arrays, and numbers in the place of names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .._core.errors import StateError
from .convention import AFFINE, ARRAYS, Path

# The names of arrays that optimizers keep beside each parameter.
SLOTS = frozenset(
    f"{name}{number}"
    for name in ("Adadelta", "Adagrad", "AdagradDA", "Adam", "AdaMax", "Ftrl", "LARS", "Momentum", "RMSProp")
    for number in ("", "_1", "_2")
)
AVERAGE = "ExponentialMovingAverage"


def bare(path: Path) -> Path:
    """The path without the suffix of a variable's output: gamma:0, or gamma/.ATTRIBUTES/VARIABLE_VALUE."""
    if path[-2:] == ("ATTRIBUTES", "VARIABLE_VALUE"):
        path = path[:-2]
    if path and path[-1].endswith(":0") and path[-1] != ":0":
        path = (*path[:-1], path[-1][:-2])
    return path


def is_passed_over(path: Path, key: str, arrays: Collection[Path]) -> bool:
    """True if this is an array of an optimizer, not of the layer; an error where it is one that could be meant."""
    if "OPTIMIZER_SLOT" in path and path[: path.index("OPTIMIZER_SLOT")] in arrays:
        return True
    if path[:-1] not in arrays:
        return False
    if path[-1] in SLOTS:
        return True
    array, suffix = path[-2], path[-1]
    if suffix == AVERAGE:
        raise StateError(
            f"{key} is unexpected: the suffix {suffix} says that it is an average of {array} over training; "
            f"give one of the two, under the name {array}"
        )
    raise StateError(f"{key} is unexpected: the suffix {suffix} after {array} is none of an array, or an optimizer's")


def numbered(entries: Collection[tuple[Path, str, Any]], layer: Path, told: Mapping[str, Any]) -> dict[Path, str]:
    """Keras 3 numbers the variables of a layer: vars/0 and so on; which array is where."""
    keys = {path[-1]: path for path, _, _ in entries if path[:-1] == (*layer, "vars")}
    if not keys:
        return {}
    where = "/".join((*layer, "vars"))
    without = [name for flag, name in (("scale", "gamma"), ("center", "beta")) if told.get(flag, True) is False]
    names = [name for name in ARRAYS if name not in without]
    expected = [str(index) for index in range(len(keys))]
    if len(keys) == 4:
        names = list(ARRAYS)  # and where a flag says otherwise, that is an error of its own
    if sorted(keys) != expected or len(keys) != len(names):
        told_so = "" if len(keys) in (2, 3, 4) else ", the arrays of a layer with renorm, or of another layer"
        raise StateError(
            f"{where} has {len(keys)} arrays ({', '.join(sorted(keys))}){told_so}, expected 4: {', '.join(ARRAYS)}; "
            f"without {' or '.join(AFFINE)} tell scale=False or center=False"
        )
    return {keys[number]: name for number, name in zip(expected, names)}
