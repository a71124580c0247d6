# SPDX-License-Identifier: Apache-2.0
"""Batch norms found among arrays by the names of a framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..inspection.of_state import beside, entries_of, layers_of
from ..interop.convention import Convention

Arrays = dict[str, NDArray[Any]]


class Found(NamedTuple):
    """A layer as from_state() needs it, and the names of its arrays in the file."""

    name: str
    state: Mapping[str, Any]
    prefix: str
    settings: Mapping[str, Any]
    keys: frozenset[str]


def layers_in(arrays: Mapping[str, Any], convention: Convention, path: Path | None) -> list[Found]:
    """All layers of a framework; of a file of Keras those by number, too."""
    entries = entries_of(arrays)
    found = []
    settings: Mapping[str, Mapping[str, Any]] = {}
    if path is not None and path.suffix in (".h5", ".keras"):
        from ..inspection.of_keras import described, settings_at

        settings = described(path)[0]
    for layer in layers_of(entries, convention):
        paths = {name: beside(entries, convention, layer, name) for name in convention.keys}
        keys = {name: entries[each] for name, each in paths.items() if each is not None}
        told = _settings(settings_at(layer, settings), convention) if settings else {}
        if "" in layer:  # below something that is no part of the framework's names
            own = convention.separator.join(part for part in layer[layer.index("") + 1 :])
            state = {convention.key(name, own): arrays[key] for name, key in keys.items()}
            name = convention.separator.join(part for part in layer if part)
            found.append(Found(name, state, own, told, frozenset(keys.values())))
        else:
            name = convention.separator.join(layer)
            found.append(Found(name, arrays, name, told, frozenset(keys.values())))
    if convention.framework == "keras":
        found += _numbered(arrays, path)
    return found


def _numbered(arrays: Mapping[str, Any], path: Path | None) -> Iterator[Found]:
    from ..inspection.of_keras import groups_of, numbered_norms

    names = numbered_norms(path, arrays)
    for group, numbered in groups_of(arrays).items():
        if group in names:
            prefix = group.rpartition("/")[0]
            keys = frozenset(f"{group}/{number}" for number in numbered)
            yield Found(prefix, arrays, prefix, _flags(names[group]), keys)


def _flags(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of a layer's configuration that from_state() takes."""
    words = ("epsilon", "momentum", "scale", "center")
    return {word: config[word] for word in words if config and word in config}


def _settings(config: Mapping[str, Any] | None, convention: Convention) -> dict[str, Any]:
    return _flags(config) if convention.framework in ("keras", "tensorflow") else {}
