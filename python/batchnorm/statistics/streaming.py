# SPDX-License-Identifier: Apache-2.0
"""An array in slices that follow the order of its memory, which may be that of a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import Array, plain, tensor
from .._core.progress import shown


def opened(x: Any) -> Array:
    """x as an array; the path of a .npy file gives a memory map of the file."""
    if isinstance(x, (str, os.PathLike)):
        name = os.fspath(x)
        array = plain(_mapped(name), name)
    else:
        name, array = "x", plain(x, "x")
    return tensor(array, name)


def slices(array: Array, size: int, progress: bool | None) -> tuple[int, Iterable[Array]]:
    """The axis that is outermost in memory, and views of about `size` bytes along it."""
    axis = max(range(array.ndim), key=lambda a: (array.shape[a] > 1) * abs(array.strides[a]))
    step = max(1, size // max(1, array.nbytes // max(1, array.shape[axis])))
    starts = range(0, max(1, array.shape[axis]), step)
    before = (slice(None),) * axis
    shown_starts = shown(starts, progress, len(starts), " slices")
    return axis, (array[(*before, slice(start, start + step))] for start in shown_starts)


def _mapped(path: str) -> NDArray[Any]:
    try:
        # Unlike numpy.load() it takes nothing but .npy, and has nothing to do with pickles.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # of any kind: the header is Python to be parsed, where nesting is a MemoryError
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a whole .npy file of numbers: {reason}") from error
