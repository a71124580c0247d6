# SPDX-License-Identifier: Apache-2.0
"""Batch norms in files of Keras: names or numbers of variables, and settings where the file has the model's, too."""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .norm import Array, Norm
from .of_state import norms_of

_CLASS = "BatchNormalization"
# The group of a layer in a file of weights is called after its class.
_GROUP = re.compile(r"batch_normalization(_\d+)?")
_CONFIG = "config.json"
_LONGEST = 1 << 27  # of a configuration; a longer one was packed to do harm
_ORDER = "gamma", "beta", "mean", "var"


def norms_of_keras(path: Path, arrays: Mapping[str, Array]) -> list[Norm]:
    """The batch norms of a file whose arrays have been read."""
    settings, names = described(path)
    made = [_settled(norm, settings_at(tuple(norm.name.split("/")), settings)) for norm in norms_of(arrays)]
    groups = groups_of(arrays)
    for group, told in _chosen(groups, settings, names).items():
        norm = _numbered(names.get(group) or group.rpartition("/")[0], groups[group], told)
        made.append(_settled(norm, told))
    return made


def numbered_norms(path: Path | None, arrays: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """The groups of numbered variables that are batch norms, with their settings, if the file has them."""
    settings, names = described(path) if path is not None and path.suffix in (".h5", ".keras") else ({}, {})
    return _chosen(groups_of(arrays), settings, names)


def groups_of(arrays: Mapping[str, Any]) -> dict[str, dict[int, Any]]:
    """Variables by number, by their groups: layers/bn1/vars."""
    groups: dict[str, dict[int, Any]] = {}
    for key, array in arrays.items():
        group, _, number = key.rpartition("/")
        if group.endswith("vars") and number.isdecimal():
            groups.setdefault(group, {})[int(number)] = array
    return groups


def settings_at(path: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The settings of the layer whose name stands last in a path."""
    return next((settings[part] for part in reversed(path) if part in settings), None)


def _chosen(
    groups: Iterable[str], settings: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, Mapping[str, Any] | None]:
    chosen: dict[str, Mapping[str, Any] | None] = {}
    # Where the file has no names of groups, as of early releases of Keras 3, settings that all layers have are those
    # of any.
    every = [{key: value for key, value in told.items() if key != "name"} for told in settings.values()]
    common = every[0] if every and all(told == every[0] for told in every) else None
    for group in groups:
        own = group.rpartition("/")[0].rpartition("/")[2]
        if names.get(group) in settings:
            chosen[group] = settings[names[group]]
        elif not settings and _GROUP.fullmatch(own):
            chosen[group] = None
        elif common is not None and group not in names and _GROUP.fullmatch(own):
            chosen[group] = common
    return chosen


def _numbered(name: str, numbered: Mapping[int, Array], told: Mapping[str, Any] | None) -> Norm:
    norm = Norm(name, "keras", assumed_eps=1e-3)
    arrays = [numbered[index] for index in sorted(numbered)]
    if told is not None:
        without = {key for key, flag in (("gamma", "scale"), ("beta", "center")) if told.get(flag) is False}
        expected = [key for key in _ORDER if key not in without]
    else:
        expected = list(_ORDER[-len(arrays) :] if len(arrays) in (2, 4) else ("gamma or beta", "mean", "var"))
    if len(arrays) != len(expected):
        norm.unknown = f"it has {len(arrays)} arrays, expected {len(expected)}"
        return norm
    return norm.take({key: array for key, array in zip(expected, arrays) if key in _ORDER})


def _settled(norm: Norm, told: Mapping[str, Any] | None) -> Norm:
    if told and isinstance(told.get("epsilon"), (int, float)) and isinstance(told.get("momentum"), (int, float)):
        norm.eps, norm.momentum = float(told["epsilon"]), round(1 - float(told["momentum"]), 12)
    return norm


def described(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The settings of batch norms by the names of layers, and the names of layers by their groups of variables."""
    try:
        text, names = _texts(path)
    except MemoryError:
        raise
    except Exception as error:  # of zipfile, zlib and h5py, for files that are damaged
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}") from None
    try:
        config = json.loads(text) if text else {}
        settings = {told["name"]: told for told in _configs(config) if isinstance(told.get("name"), str)}
    except (ValueError, RecursionError):
        settings = {}  # the numbers are there all the same
    return settings, names


def _configs(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        told = config.get("config")
        if config.get("class_name") == _CLASS and isinstance(told, dict):
            yield told
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _configs(each)


def _texts(path: Path) -> tuple[Any, dict[str, str]]:
    """The configuration of the model, or nothing, and what groups of variables say that their layers are called."""
    h5py = importlib.import_module("h5py")
    names: dict[str, str] = {}
    text: Any = b""
    with path.open("rb") as file:
        weights: Any = file
        if path.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                if _CONFIG in archive.namelist():
                    with archive.open(_CONFIG) as packed:
                        text = packed.read(_LONGEST)
                weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r") as root:
            text = text or root.attrs.get("model_config", b"")

            def note(name: str, item: Any) -> None:
                if name.endswith("vars") and isinstance(item.attrs.get("name"), str):
                    names[name] = item.attrs["name"]

            root.visititems(note)
    return text, names
