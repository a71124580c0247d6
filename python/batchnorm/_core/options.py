# SPDX-License-Identifier: Apache-2.0
"""Options as the library takes them, and the two senses of momentum."""

from __future__ import annotations

import ctypes
import operator
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from .arrays import kind_of
from .structs import Options

Member = TypeVar("Member", bound=IntEnum)

# An object of its own, so that a caller's 0.1 can be told from no argument.
DEFAULT_MOMENTUM = float("0.1")


def make_options(
    eps: float = 1e-5, momentum: float | None = 0.1, unbiased: bool = True, frozen: bool = False, param_code: int = 0
) -> Options:
    """A new bn_options; the library checks the values."""
    numbers = number(eps, "eps"), number(momentum, "momentum")
    return Options(ctypes.sizeof(Options), *numbers, not flag(unbiased, "unbiased"), frozen, param_code)


# Calls repeat their options: the structures are kept and never written again.
kept_options = lru_cache(maxsize=128)(make_options)


def options(
    eps: float = 1e-5, momentum: float | None = 0.1, unbiased: bool = True, frozen: bool = False, param_code: int = 0
) -> Options:
    """A bn_options with these values."""
    try:
        return kept_options(eps, momentum, unbiased, frozen, param_code)
    except TypeError:
        pass  # an array, which has no hash: a number perhaps, but none to look up by
    return make_options(eps, momentum, unbiased, frozen, param_code)


def flag(value: Any, name: str) -> bool:
    """`value` as a bool. A text is an error: Python would take "no" for True."""
    if not isinstance(value, (bool, np.bool_)):
        shown = repr(value) if value is None or isinstance(value, (str, int, float)) else f"of type {kind_of(value)}"
        raise TypeError(f"{name} is {shown}, expected True or False")
    return bool(value)


def number(value: Any, name: str) -> float:
    """`value` as a float, if it is one number; float() would take a text as well."""
    if not isinstance(value, (float, int)):
        array = np.asarray(value)
        if array.shape != ():
            raise TypeError(f"{name} has shape {array.shape}, expected a number")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} is of type {type(value).__name__}, expected a number")
    return float(value)


def at_least_one(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an int") from None
    if number < 1:
        raise ValueError(f"{name} is {number}, expected at least 1")
    return number


def member(kind: type[Member], value: Any, name: str) -> Member:
    """The member of an enum that `value` names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected a text")
    names = _names(kind)
    if value not in names:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, names))}")
    found: Member = names[value]
    return found


@lru_cache(maxsize=32)
def _names(kind: type[Member]) -> dict[str, Member]:
    return {each.name.lower(): each for each in kind}


def weight_of_new(momentum: float | None, decay: float | None) -> float | None:
    """The weight of the new batch, from `momentum` or `decay`."""
    if decay is None:
        return momentum
    if momentum is not DEFAULT_MOMENTUM:
        raise ValueError("momentum and decay say the same thing (decay = 1 - momentum): give one of them")
    decay = number(decay, "decay")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}, expected a number from 0 to 1")
    return 1.0 - decay
