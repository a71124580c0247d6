# SPDX-License-Identifier: Apache-2.0
"""Random inputs for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .running import TYPES

# The length of a first axis that the model leaves open: with 1, samples could not be mixed up.
_BATCH = 2


def draw(
    inputs: Mapping[str, tuple[str, Sequence[Any]]], shapes: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Normal numbers for floats, and 0 or 1 for whole numbers, which may be indices.

    Parameters
    ----------
    inputs : mapping
        The type and the shape of each, as Session has them.
    shapes : mapping
        Shapes of the inputs whose shape is not known.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        A shape is not known, there is no such input, or nothing can be drawn of its type.
    """
    for name in shapes:
        if name not in inputs:
            raise ValueError(f"the model has no input {name!r}, only {', '.join(map(repr, inputs))}")
    drawn = {}
    for name, (kind, said) in inputs.items():
        if kind not in TYPES:
            raise ValueError(f"input {name!r} is a {kind}, of which none can be drawn")
        shape = tuple(shapes[name] if name in shapes else _closed(name, said))
        dtype = np.dtype(TYPES[kind])
        numbers = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, size=shape)
        drawn[name] = numbers.astype(dtype)
    return drawn


def _closed(name: str, said: Sequence[Any]) -> list[int]:
    shape = [_BATCH if axis == 0 and not isinstance(length, int) else length for axis, length in enumerate(said)]
    if not all(isinstance(length, int) for length in shape):
        open_shape = ",".join(str(length or "?") for length in said)
        raise ValueError(f"input {name!r} has shape {open_shape}, expected numbers: --shape {name}=... gives them")
    return shape
