# SPDX-License-Identifier: Apache-2.0
"""oneDNN: its C++ interface, by a driver that is compiled against the wheels and called from C."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import numpy as np

from harness.native import compiled
from harness.problem import EPS, Array, Problem
from harness.system import Caller, Trial
from harness.timing import fastest
from harness.workloads import OPERATIONS, Operation

LIBRARY, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"


def installed(package: str, ending: str) -> Path:
    """The path at which a wheel put the file with that end of its path."""
    for path in files(package) or []:
        if str(path).endswith(ending):
            return Path(str(path.locate())).resolve()
    raise LookupError(f"{package} has no {ending}")


class Buffers(ctypes.Structure):
    """`Buffers` of onednn.cpp."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("x", "dy", "y", "dx", "gamma", "beta", "mean", "variance", "dgamma", "dbeta")
    ]


class Job:
    """A primitive with its arguments, and the arrays that these point into."""

    def __init__(self, lib: ctypes.CDLL, handle: int, arrays: list[Array]) -> None:
        self.lib, self.handle, self.arrays = lib, handle, arrays
        self.implementation: str = lib.onednn_implementation(handle).decode()
        weakref.finalize(self, lib.onednn_free, handle)

    def run(self, times: int) -> float:
        seconds: float = self.lib.onednn_run(self.handle, times)
        return seconds


class OneDNN:
    """The batch normalization primitive on plain layouts, in the fastest of its implementations."""

    name = "onednn"
    caller: Caller = "c"
    composed = False

    def __init__(self, threads: int) -> None:
        # The number of threads is that of OMP_NUM_THREADS, which was set before this process began.
        del threads
        try:
            include = installed(HEADERS, "oneapi/dnnl/dnnl.hpp").parents[2]
            library = installed(LIBRARY, "libdnnl.so.3")
            self.version = version(LIBRARY)
        except PackageNotFoundError as error:
            raise ImportError(f"{error.name} is not installed") from error
        self.lib = compiled(
            "peers/onednn.cpp", "-std=c++17", f"-I{include}", str(library), f"-Wl,-rpath,{library.parent}"
        )
        self.lib.onednn_prepare.restype = ctypes.c_void_p
        self.lib.onednn_prepare.argtypes = [
            ctypes.c_int,
            *[ctypes.c_long] * 3,
            *[ctypes.c_int] * 2,
            ctypes.c_float,
            ctypes.POINTER(Buffers),
        ]
        self.lib.onednn_run.restype = ctypes.c_double
        self.lib.onednn_run.argtypes = [ctypes.c_void_p, ctypes.c_long]
        self.lib.onednn_implementation.restype = ctypes.c_char_p
        self.lib.onednn_implementation.argtypes = [ctypes.c_void_p]
        self.lib.onednn_free.argtypes = [ctypes.c_void_p]
        self.lib.onednn_free.restype = None

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        if problem.dtype != np.float32:
            return None
        return fastest(self.trials(problem, operation))

    def trials(self, problem: Problem, operation: Operation) -> Iterator[Trial]:
        """Every implementation, but the reference one (which is not meant to be fast) only if there is no other."""
        for number in itertools.count():
            job = self.job(problem, operation, number)
            if job is None or (number > 0 and job.implementation.startswith("ref")):
                return
            yield Trial(job.run, lambda: problem.dx if operation == "backward" else problem.y)

    def job(self, problem: Problem, operation: Operation, implementation: int) -> Job | None:
        """The implementation of that number, None if there are fewer."""
        p, w = problem, problem.workload
        if operation == "inference":
            mean, variance = p.running_mean, p.running_var
        elif operation == "training":
            mean, variance = np.zeros_like(p.gamma), np.zeros_like(p.gamma)
        else:
            mean, invstd = (value.astype(p.dtype) for value in p.statistics)
            variance = invstd**-2 - np.float32(EPS)
        arrays = [p.x, p.dy, p.y, p.dx, p.gamma, p.beta, mean, variance, p.gamma.copy(), p.beta.copy()]
        buffers = Buffers(*(array.ctypes.data for array in arrays))
        inner = w.elements // (w.n * w.c)
        layout = ("NCHW", "NHWC", "NC").index(p.layout)
        handle = self.lib.onednn_prepare(
            OPERATIONS.index(operation), w.n, w.c, inner, layout, implementation, EPS, buffers
        )
        return Job(self.lib, handle, arrays) if handle else None
