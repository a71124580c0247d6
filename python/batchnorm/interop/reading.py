# SPDX-License-Identifier: Apache-2.0
"""The arrays of one layer in the state of another framework: found by their keys, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import kind_of
from .._core.errors import StateError
from .._core.layout import BITS, NAMES, Axis, code_of
from .._core.tensors import bfloat16, detached
from ..layers.loading import per_channel, whole
from .convention import COUNT, Convention, Path, path_of
from .suffixes import bare, is_passed_over, numbered

# Far beyond any model's. Down to the interpreter's own limit, what is found meanwhile would fill a gigabyte.
_DEEPEST = 100


class Found(NamedTuple):
    """A value, and its key as the caller knows it."""

    key: str
    value: Any


def find(state: Any, convention: Convention, prefix: str, told: Mapping[str, Any]) -> dict[str, Found]:
    """The arrays of the layer at `prefix`, by the names that they have here; `told` are the layer's settings."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is of type {kind_of(state)}, expected a mapping of names to arrays")
    layer = path_of(prefix)
    names = {path: name for name in convention.keys for path in convention.paths(name, layer)}
    found: dict[str, Found] = {}
    entries = [(_cleaned(path, convention), key, value) for path, key, value in _flat(state)]
    if convention.framework == "keras":
        names.update(numbered(entries, layer, told))
    for path, key, value in entries:
        name = names.get(path)
        if name in found:
            raise ValueError(f"{key} and {found[name].key} are the same key")
        if name is not None:
            found[name] = Found(key, value)
        elif is_passed_over(path, key, names) or path[-1:] in [(each,) for each in convention.passed_over]:
            continue
        elif convention.is_below(path, layer):
            own = ", ".join(convention.keys.values())
            raise StateError(f"{key} is unexpected: a layer has {own}{_others(entries, convention, layer)}")
    if not found and "num_features" not in told:
        own = " or ".join(convention.key(name, prefix) for name in ("gamma", "running_mean"))
        raise StateError(f"{own} is missing{_others(entries, convention, layer)}")
    _check_keys(found, convention, prefix, told)
    return found


def _check_keys(found: Mapping[str, Found], convention: Convention, prefix: str, told: Mapping[str, Any]) -> None:
    """Raises StateError unless all arrays are there that the others, or flags, ask for."""
    reasons = {
        name: f", but {found[asking].key} is there" if asking else ""
        for name, asking in convention.needed(found).items()
    }
    for flag, names in convention.flags.items():
        if told.get(flag):
            reasons.update({name: f", but {flag} is True" for name in names if name != COUNT})
        elif flag in told:
            for name in filter(found.__contains__, names):
                raise StateError(f"{found[name].key} is unexpected, as {flag} is False")
    for name, reason in reasons.items():
        if name not in found:
            raise StateError(f"{convention.key(name, prefix)} is missing{reason}")


def _cleaned(path: Path, convention: Convention) -> Path:
    """A path without suffixes and what may stand before it, in the spelling of the convention."""
    path = bare(path)
    for head in convention.heads:
        if path and path[0].startswith(head):
            path = (path[0][len(head) :], *path[1:])
    return (*path[:-1], convention.aliases.get(path[-1], path[-1])) if path else path


def _flat(
    state: Mapping[Any, Any], path: Path = (), above: str = "", depth: int = 0
) -> Iterator[tuple[Path, str, Any]]:
    if depth > _DEEPEST:
        raise ValueError("state is nested without end, or too deeply")
    for own, value in state.items():
        parts = (*path, *path_of(own))
        key = above + ("/".join(map(str, own)) if isinstance(own, tuple) else str(own))
        if isinstance(value, Mapping):
            yield from _flat(value, parts, key + "/", depth + 1)
        else:
            yield parts, key, value


def _others(entries: list[tuple[Path, str, Any]], convention: Convention, layer: Path) -> str:
    """A hint at the places where there are layers."""
    found = [convention.layer_at(path) for path, _, _ in entries]
    paths = list(dict.fromkeys([path for path in found if path is not None] + _of_numbers(entries, convention)))
    prefixes = [repr(convention.separator.join(path)) for path in paths if path != layer]
    more = f" and {len(prefixes) - 4} more" if len(prefixes) > 4 else ""
    return f" (layers are at prefix {', '.join(prefixes[:4])}{more})" if prefixes else ""


def _of_numbers(entries: list[tuple[Path, str, Any]], convention: Convention) -> list[Path]:
    """The layers of Keras 3 that have four variables."""
    at = [path[:-2] for path, _, _ in entries if path[-2:] == ("vars", "3")]
    return at if convention.framework == "keras" else []


def floats(given: Found) -> NDArray[Any]:
    """The value as an array of a dtype that the library knows, one element per channel."""
    array = detached(given.value, given.key)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == BITS:
        array = array.view(bfloat16(given.key))
    if code_of(array.dtype) is None:
        raise TypeError(f"{given.key} has dtype {array.dtype}, expected {NAMES}")
    if array.ndim == 0:
        raise ValueError(f"{given.key} is a single number, expected one element per channel")
    if array.size == 0:
        raise ValueError(f"{given.key} has shape {array.shape}, expected at least one channel")
    return array


def count(given: Found) -> int:
    """num_batches_tracked."""
    return int(whole(detached(given.value, given.key), given.key))


def factor(given: Found) -> float:
    """The divisor of sums: Caffe's third blob. It is 0 before the first batch, and then the sums count as 0."""
    array = detached(given.value, given.key)
    if array.size != 1 or not np.can_cast(array.dtype, np.float64):
        raise ValueError(f"{given.key} is {array.dtype} of shape {array.shape}, expected one number")
    value = float(array.astype(np.float64).reshape(())[()])
    if not 0 <= value < math.inf:
        raise ValueError(f"{given.key} is {value:g}, expected a finite number of at least 0")
    return value


def channels(arrays: dict[str, NDArray[Any]], found: Mapping[str, Found], axis: Axis, told: Any) -> tuple[int, ...]:
    """The shape of all arrays, which is (told,) if that is a number; arrays of (1, C, 1, 1) and the like get it."""
    shape, reason = (None, "") if told is None else ((int(told),), "num_features")
    for name, array in list(arrays.items()):
        key = found[name].key
        if not isinstance(axis, tuple):
            array = arrays[name] = per_channel(array)
        if array.ndim != (len(axis) if isinstance(axis, tuple) else 1):
            raise ValueError(f"{key} has shape {array.shape}, expected one element per channel along axis {axis}")
        if shape is None:
            shape, reason = array.shape, f"as {key} has"
        if array.shape != shape:
            raise ValueError(f"{key} has shape {array.shape}, expected {shape}, {reason}")
    assert shape is not None, "there are arrays, or num_features"
    return shape


def common_dtype(arrays: Mapping[str, NDArray[Any]], wide: bool = False) -> np.dtype[Any]:
    """A dtype that holds the values of all arrays as they are; at least float32 if it is to be `wide`."""
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) == 1 and not (wide and next(iter(dtypes)).itemsize == 2):
        return dtypes.pop()
    # float16 and bfloat16 have float32 in common; without arrays it is the default.
    return np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)
