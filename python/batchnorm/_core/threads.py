# SPDX-License-Identifier: Apache-2.0
"""The library as a whole: its threads and its instruction set."""

from __future__ import annotations

import operator

from .library import last_error, lib


def set_num_threads(n: int) -> None:
    """Sets the number of threads that later calls may use: 1 to 1024, or 0 for the default of the environment.

    Results do not depend on it, to the bit, and no more threads are at work than the process had CPUs at the first
    call. Any other number is a ValueError.
    """
    # A number that a C int does not hold would be cut down to one that it does.
    lib.bn_set_num_threads(max(-1, min(operator.index(n), 2**31 - 1)))


def get_num_threads() -> int:
    """The number of threads that a call may use. RuntimeError if BATCHNORM_NUM_THREADS cannot be honoured."""
    n: int = lib.bn_get_num_threads()
    if n == 0:
        raise RuntimeError(last_error())
    return n


def isa() -> str:
    """The instruction set in use: "baseline", or on x86-64 "avx2" or "avx512".

    RuntimeError if BATCHNORM_ISA cannot be honoured.
    """
    name: bytes | None = lib.bn_isa_name()
    if name is None:
        raise RuntimeError(last_error())
    return name.decode()
