# SPDX-License-Identifier: Apache-2.0
"""Samples of a user as a model takes them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reading import PathLike
from .running import TYPES

Array = NDArray[Any]
Inputs = Mapping[str, "tuple[str, Sequence[Any]]"]

_BATCH = 32


def read_data(path: PathLike, inputs: Sequence[str]) -> dict[str, Array]:
    """The arrays of an .npz file by name, or the one of an .npy file, which is of a model with one input.

    Raises
    ------
    ValueError
        It is neither, is damaged, or has no names.
    OSError
        It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:  # which np.load would leave open where the archive is damaged
        start = file.read(6)
        if start[:2] != b"PK" and start != b"\x93NUMPY":
            raise ValueError(f"{path} is neither an .npz nor an .npy file")
        file.seek(0)
        try:
            found = np.load(file, allow_pickle=False)
            arrays = {} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
        except OSError:
            raise
        except Exception as error:  # of zipfile, zlib and numpy
            raise ValueError(f"{path} cannot be read as .npz or .npy: {error}") from None
    if not isinstance(found, np.ndarray):
        return arrays
    if len(inputs) != 1:
        raise ValueError(f"an .npy file is of one input, and the model has {', '.join(map(repr, inputs))}")
    return {inputs[0]: found}


class Feed:
    """Batches of samples, which are along the first axis of each input.

    Parameters
    ----------
    inputs : mapping
        The type and the shape of each, as Session has them.
    data : mapping of str to array
        May have more than the inputs.
    batch : int, optional
        The number of samples at a time: as many as the model takes or, if it takes any number, 32.

    Raises
    ------
    ValueError
        An input is missing, or does not fit.
    """

    def __init__(self, inputs: Inputs, data: Mapping[str, Array], batch: int | None) -> None:
        if not inputs:
            raise ValueError("the batch norms do not depend on an input")
        self.arrays = {name: _fitting(name, *told, data) for name, told in inputs.items()}
        lengths = {name: len(array) for name, array in self.arrays.items()}
        self.samples = next(iter(lengths.values()))
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise ValueError(f"the data have other numbers of samples: {told}")
        if not self.samples:
            raise ValueError("the data have no samples")
        fixed = {shape[0] for _, shape in inputs.values() if isinstance(shape[0], int)}
        if len(fixed) > 1:
            raise ValueError(f"the inputs of the model take {sorted(fixed)} samples at a time, expected one number")
        takes = next(iter(fixed), None)
        self.batch = takes or batch or _BATCH
        if takes and batch not in (None, takes):
            raise ValueError(f"the model takes {takes} samples at a time, not {batch}")
        if takes and self.samples % takes:
            raise ValueError(f"the model takes {takes} samples at a time, and {self.samples} is no multiple of it")

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for start in range(0, self.samples, self.batch):
            yield {name: array[start : start + self.batch] for name, array in self.arrays.items()}


def _fitting(name: str, kind: str, shape: Sequence[Any], data: Mapping[str, Array]) -> Array:
    if name not in data:
        there = ", ".join(map(repr, data)) or "nothing"
        raise ValueError(f"the data have no {name!r}, which is an input of the model, only {there}")
    array, dtype = data[name], TYPES.get(kind)
    if dtype is None or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{name!r} has dtype {array.dtype} in the data, expected {kind}")
    said = ", ".join(str(length or "?") for length in shape)
    fits = len(shape) == array.ndim and all(
        axis == 0 or not isinstance(length, int) or length == array.shape[axis] for axis, length in enumerate(shape)
    )
    if not shape or not fits:
        raise ValueError(f"{name!r} has shape {array.shape} in the data, expected ({said}), samples first")
    return array.astype(dtype, copy=False)
