# SPDX-License-Identifier: Apache-2.0
"""Public classes under their public names, wherever their code stands.

A pickle names the module of a class; a TypeError about arguments names the class that a method was written in. Both
would be private here, and the first would keep files from being moved.
"""

from __future__ import annotations

from types import FunctionType
from typing import TypeVar

Kind = TypeVar("Kind", bound=type)

_PACKAGE = __name__.partition(".")[0]
_KERAS = f"{_PACKAGE}.interop.keras"  # which has a class of its own, by the name that Keras has for it
_published: set[type] = set()


def publish(kind: Kind) -> Kind:
    """Has a class be the package's, with the methods that it has from private ones; a decorator."""
    _published.add(kind)
    kind.__module__ = _KERAS if kind.__module__.startswith(_KERAS) else _PACKAGE
    for base in kind.__mro__:
        if base in _published or base.__module__.partition(".")[0] != _PACKAGE:
            continue
        for name, function in vars(base).items():
            if isinstance(function, FunctionType) and getattr(kind, name) is function:
                setattr(kind, name, _named(function, f"{kind.__name__}.{name}"))
    return kind


def _named(function: FunctionType, name: str) -> FunctionType:
    """The same function under a name of its own."""
    code, variables, closure = function.__code__, function.__globals__, function.__closure__
    copy = FunctionType(code, variables, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__, copy.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    copy.__annotations__, copy.__doc__ = function.__annotations__, function.__doc__
    copy.__module__, copy.__qualname__ = function.__module__, name
    return copy
