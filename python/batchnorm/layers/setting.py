# SPDX-License-Identifier: Apache-2.0
"""Attributes of a layer that send its calls the long way, through `extended_calls`."""

from __future__ import annotations

from typing import Any


class Setting:
    """An attribute that the short code of a layer's calls does not know: if one is set, they go the long way."""

    def __init__(self, default: Any = None) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = "_" + name

    def __get__(self, layer: Any, owner: type) -> Any:
        return self if layer is None else layer.__dict__.get(self.key, self.default)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.key] = value
        describe(layer)


def describe(layer: Any) -> None:
    """Notes in the layer whether it has any setting."""
    keys = "_activation", "_running", "_source", "_groups", "_frozen", "__observer"
    set_ones = [value for value in map(layer.__dict__.get, keys) if value is not None and value is not False]
    layer._is_described = bool(set_ones)
