# SPDX-License-Identifier: Apache-2.0
"""The state of an object in a pickle: its attributes and a version, so that a later package knows what it reads."""

from __future__ import annotations

from typing import Any

from numpy import ndarray

from .._version import __version__

VERSION = 1


def versioned(attributes: dict[str, Any]) -> dict[str, Any]:
    """The state that goes into a pickle."""
    return {"version": VERSION, "attributes": attributes}


def attributes_of(state: Any, kind: type) -> dict[str, Any]:
    """The attributes that a state has, if it is of a version that this package knows."""
    found = state.get("version") if isinstance(state, dict) else None
    if not isinstance(found, int):
        raise ValueError(f"this state of a {kind.__name__} has no version, expected {VERSION}: it is not from a pickle")
    if not 1 <= found <= VERSION:
        raise ValueError(
            f"this {kind.__name__} was pickled in version {found} of the format, but batchnorm {__version__} knows "
            f"versions up to {VERSION}: load it with the package that wrote it, or a newer one"
        )
    attributes = state.get("attributes")
    if not isinstance(attributes, dict):
        raise ValueError(f"this state of a {kind.__name__} is damaged: it has no attributes")
    return {name: _aligned(value) for name, value in attributes.items()}


def _aligned(value: Any) -> Any:
    """The value with arrays that the library can read: a pickle's may lie anywhere in a message, as Dask has it."""
    if isinstance(value, ndarray):
        return value if value.flags.aligned else value.copy()
    if type(value) is dict:
        return {key: _aligned(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_aligned, value))
    return value


class Versioned:
    """An object whose pickle has a version."""

    def __getstate__(self) -> dict[str, Any]:
        return versioned(dict(self.__dict__))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(attributes_of(state, type(self)))
