# SPDX-License-Identifier: Apache-2.0
"""The resources that a process holds: memory of its own, Python's blocks, open files, threads."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

C = ctypes.CDLL(None)


class Info(ctypes.Structure):
    """The structure that mallinfo2() of the C library returns."""

    NAMES = "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in NAMES]


C.mallinfo2.restype = Info


class Holding(NamedTuple):
    """An amount of each resource."""

    resident: int  # bytes of pages that are no file's
    used: int  # bytes of C's blocks
    objects: int  # Python's blocks
    files: int
    threads: int


def begin() -> None:
    """Blocks of all threads are in one place, of which mallinfo2() tells, and NumPy has what it keeps of small arrays,
    seven of each size below a kilobyte, from the first.
    """
    C.mallopt(-8, 1)
    for size in range(1024):
        [np.empty(size, np.uint8) for _ in range(7)]


def forget() -> None:
    """Empties the package's caches of calls, each of which has a limit and is no growth."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("batchnorm"):
            assert each.cache_info().maxsize is not None, each
            each.cache_clear()


def look() -> Holding:
    """Returns what the process holds; freed memory goes back to the system first, or it would look like growth."""
    forget()
    gc.collect()
    C.malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files, threads = (len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("fd", "task"))
    info = C.mallinfo2()
    used = info.uordblks + info.hblkhd
    return Holding(1024 * int(status["RssAnon"].split()[0]), used, sys.getallocatedblocks(), files, threads)
