# SPDX-License-Identifier: Apache-2.0
"""The floors: passes over the same buffers that only move them. Times of others are multiples of theirs."""

from __future__ import annotations

import ctypes
from typing import ClassVar

from harness.native import compiled
from harness.problem import Problem
from harness.system import Caller, Trial
from harness.timing import fastest
from harness.workloads import OPERATIONS, Operation

from . import COPY, THREE_TENSORS, TWO_READS


class Floor:
    """A pass in C; of several ways to do it, and of any number of threads up to the one granted, the fastest counts."""

    name: str
    passes: ClassVar[tuple[int, ...]]  # numbers in native/floors.c
    operations: ClassVar[tuple[Operation, ...]]
    version = "C"
    caller: Caller = "c"
    composed = False

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.repeat = compiled("native/floors.c").repeat_pass
        self.repeat.restype = ctypes.c_double
        self.repeat.argtypes = [ctypes.c_int, ctypes.c_long, *[ctypes.c_void_p] * 3, ctypes.c_size_t, ctypes.c_int]

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        if operation not in self.operations:
            return None
        return fastest(
            self.trial(problem, which, threads) for which in self.passes for threads in sorted({1, self.threads})
        )

    def trial(self, problem: Problem, which: int, threads: int) -> Trial:
        """One way to do it. The output is that of backward: forward's stays for its results to be compared."""
        p = problem

        def run(times: int) -> float:
            seconds: float = self.repeat(
                which, times, p.dx.ctypes.data, p.x.ctypes.data, p.dy.ctypes.data, p.nbytes, threads
            )
            return seconds

        return Trial(run)


class Copy(Floor):
    """memcpy(y, x) of the C library."""

    name = COPY
    passes = (0,)
    operations = OPERATIONS


class TwoReads(Floor):
    """Read x, then copy it: training of a slab that no cache holds."""

    name = TWO_READS
    passes = (1,)
    operations = ("training",)


class ThreeTensors(Floor):
    """dx = dy + x, by ordinary stores or by stores past the cache."""

    name = THREE_TENSORS
    passes = (2, 3)
    operations = ("backward",)
