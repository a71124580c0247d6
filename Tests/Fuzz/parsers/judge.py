# SPDX-License-Identifier: Apache-2.0
"""A parser gives the numbers that a file has, or refuses it in a sentence, in little memory: all else is a fault."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

REFUSALS = ValueError, OSError
# A reader may take this beside the numbers: code that is loaded late, copies of headers, the C libraries' own rooms.
_ROOM = 32 << 20
# deflate packs at most 1032 bytes into one, and a number may be there twice while it is converted.
_PACKED = 2 * 1032


class FaultError(Exception):
    """A parser did what it must not do."""


def expect(condition: bool, said: str) -> None:
    if not condition:
        raise FaultError(said)


def refuses(
    call: Callable[[], Any], path: Path, kinds: tuple[type[Exception], ...] = REFUSALS, *, names: str = ""
) -> tuple[bool, Any]:
    """False and the result, or True and the error where it is one of these kinds, in a sentence with `names` in it."""
    try:
        with little_memory(path.stat().st_size):
            return False, call()
    except kinds as error:
        said = str(error)
        expect(names in said, f"{type(error).__name__} does not name {names!r}: {said!r}")
        expect(" " in said, f"{type(error).__name__} is no sentence: {said!r}")
        expect(len(said) < 2000, f"a {type(error).__name__} of {len(said)} characters: {said[:200]!r}")
        return True, error
    except Exception as error:
        raise FaultError(f"{type(error).__name__} is none of what is documented: {error}") from error


@contextmanager
def little_memory(size: int) -> Iterator[None]:
    """Lets the process have no more memory than a file of this size can be a reason for; more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ROOM + _PACKED * size
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def same_arrays(found: Arrays, expected: Arrays) -> None:
    """Expects the same bits, dtypes and shapes."""
    expect(sorted(found) == sorted(expected), f"names are {sorted(found)}, expected {sorted(expected)}")
    for name, array in found.items():
        other = expected[name]
        expect(array.shape == other.shape, f"{name} is of shape {array.shape}, expected {other.shape}")
        is_same = array.dtype == other.dtype or (other.dtype == "V2" and array.dtype.name == "bfloat16")
        expect(is_same, f"{name} is of {array.dtype}, expected {other.dtype}")
        if array.tobytes() != other.tobytes():
            raise FaultError(f"{name} is {array}, expected {other}")
