# SPDX-License-Identifier: Apache-2.0
"""The library itself: through its Python package, and from C."""

from __future__ import annotations

import ctypes

import batchnorm as bn
from batchnorm._core import library, structs

from harness.native import compiled
from harness.problem import EPS, MOMENTUM, Array, Problem
from harness.system import Caller, Trial
from harness.timing import repeated
from harness.workloads import Operation

from . import OURS, OURS_FROM_C

VERSION = f"{bn.__version__}, {bn.isa()}"
FUNCTIONS = {"training": "bn_forward_training", "inference": "bn_forward_inference", "backward": "bn_backward"}


class Ours:
    """Calls of the Python package, with `out`."""

    name = OURS
    version = VERSION
    caller: Caller = "python"
    composed = False

    def __init__(self, threads: int) -> None:
        bn.set_num_threads(threads)

    def prepare(self, problem: Problem, operation: Operation) -> Trial:
        p, axis = problem, problem.axis
        x, dy, y, dx = (flat.reshape(p.shape) for flat in (p.x, p.dy, p.y, p.dx))
        if operation == "training":

            def call() -> object:
                return bn.forward_training(
                    x,
                    p.gamma,
                    p.beta,
                    running_mean=p.running_mean,
                    running_var=p.running_var,
                    axis=axis,
                    momentum=MOMENTUM,
                    eps=EPS,
                    out=y,
                )
        elif operation == "inference":

            def call() -> object:
                return bn.forward_inference(
                    x,
                    p.gamma,
                    p.beta,
                    running_mean=p.running_mean,
                    running_var=p.running_var,
                    axis=axis,
                    eps=EPS,
                    out=y,
                )
        else:
            _, saved = bn.forward_training(x, p.gamma, p.beta, axis=axis, eps=EPS, out=y)

            def call() -> object:
                return bn.backward(dy, x, saved, out=dx)

        return Trial(repeated(call), lambda: p.dx if operation == "backward" else p.y)


class OursFromC:
    """The same functions, called by a loop in C."""

    version = VERSION
    caller: Caller = "c"
    composed = False

    def __init__(self, threads: int, lib: ctypes.CDLL | None = None, name: str | None = None) -> None:
        self.lib = lib or library.lib
        self.name = name or OURS_FROM_C
        self.lib.bn_set_num_threads(threads)
        self.repeat = compiled("native/repeat.c").repeat_call
        self.repeat.restype = ctypes.c_double
        self.repeat.argtypes = [
            ctypes.c_void_p,
            ctypes.c_long,
            ctypes.POINTER(structs.Shape),
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_void_p * 9),
            ctypes.c_int,
            ctypes.POINTER(structs.Options),
        ]

    def prepare(self, problem: Problem, operation: Operation) -> Trial:
        p = problem
        mean, invstd = (value.copy() for value in p.statistics)
        dgamma, dbeta = p.gamma.copy(), p.beta.copy()
        arrays: list[Array]
        if operation == "backward":
            arrays = [p.dy, p.x, p.gamma, p.beta, mean, invstd, p.dx, dgamma, dbeta]
        else:
            arrays = [p.x, p.gamma, p.beta, p.running_mean, p.running_var, p.y, mean, invstd]
        pointers = (ctypes.c_void_p * 9)(*(array.ctypes.data for array in arrays))
        shape = structs.Shape(ctypes.sizeof(structs.Shape), *p.core_shape, 0, 0, 0)
        options = structs.Options(ctypes.sizeof(structs.Options), EPS, MOMENTUM, 0, 0)
        dtype = {4: structs.DType.FLOAT32, 8: structs.DType.FLOAT64}[p.dtype.itemsize]
        function = ctypes.cast(getattr(self.lib, FUNCTIONS[operation]), ctypes.c_void_p)

        def run(times: int) -> float:
            # The pointers are good only as long as these live: mean, invstd, dgamma and dbeta have no other owner.
            seconds: float = self.repeat(function, times, shape, dtype, pointers, len(arrays), options)
            if seconds < 0:
                raise RuntimeError(f"{FUNCTIONS[operation]} failed with status {-seconds:.0f}")
            return seconds

        return Trial(run, lambda: p.dx if operation == "backward" else p.y)
