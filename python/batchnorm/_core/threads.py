# SPDX-License-Identifier: Apache-2.0
"""The library as a whole: its threads and its instruction set."""

from __future__ import annotations

import operator
from ctypes import c_int

from .library import last_error, lib


def set_num_threads(n: int) -> None:
    """Sets the number of threads that later calls may use: 1 to 1024, or 0 for the default of the environment.

    Results do not depend on it, to the bit, and no more threads are at work than the process had CPUs at the first
    call. Where threadpoolctl is installed, its `threadpool_limits` sets it for as long as a block.

    Raises
    ------
    ValueError
        `n` is below 0 or above 1024.
    TypeError
        `n` is not an integer.
    MemoryError
        There is no memory for this thread's first call.
    """
    number = operator.index(n)
    if number != c_int(number).value:
        raise ValueError(f"n is {number}, expected 1 to 1024, or 0 for the default")
    lib.bn_set_num_threads(number)


def get_num_threads() -> int:
    """The number of threads that a call may use.

    Raises
    ------
    RuntimeError
        BATCHNORM_NUM_THREADS is not a whole number from 1 to 1024, or there is no memory for this thread's first call.
    """
    n: int = lib.bn_get_num_threads()
    if n == 0:
        raise RuntimeError(last_error())
    return n


def isa() -> str:
    """The instruction set in use: "baseline", or on x86-64 "avx2" or "avx512".

    Raises
    ------
    RuntimeError
        BATCHNORM_ISA is none of these names, or one that this machine does not have, or there is no memory for this
        thread's first call.
    """
    name: bytes | None = lib.bn_isa_name()
    if name is None:
        raise RuntimeError(last_error())
    return name.decode()
