# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own kernels, called from C++ into outputs that exist: what is left of it without Python, its dispatcher and
its allocations.
"""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path

import numpy as np
import torch

from harness.native import compiled
from harness.problem import EPS, MOMENTUM, Problem
from harness.system import Caller, Trial
from harness.workloads import OPERATIONS, Operation

ROOT = Path(torch.__file__).parent
POINTERS = ctypes.c_void_p * 12  # `Buffers` of torch_kernels.cpp


class TorchKernels:
    """The three kernels under native_batch_norm and its gradient."""

    name = "torch kernels"
    version = str(torch.__version__)
    caller: Caller = "c"
    composed = False

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        # The dispatcher picks the kernels for this processor when the first operator runs.
        torch.native_batch_norm(torch.zeros(1, 1, 2), None, None, None, None, True, MOMENTUM, EPS)
        libraries = [str(ROOT / "lib" / name) for name in ("libtorch_cpu.so", "libc10.so")]
        # With these its header declares the dispatcher as the package for x86-64 has it.
        wide = ("-DHAVE_AVX2_CPU_DEFINITION", "-DHAVE_AVX512_CPU_DEFINITION")
        flags = ("-std=c++20", *wide, "-isystem", str(ROOT / "include"), *libraries, f"-Wl,-rpath,{ROOT / 'lib'}")
        self.lib = compiled("peers/torch_kernels.cpp", "-Wno-unused-parameter", *flags)
        self.lib.torch_kernels_prepare.restype = ctypes.c_void_p
        self.lib.torch_kernels_prepare.argtypes = [
            ctypes.c_int,
            *[ctypes.c_long] * 3,
            ctypes.c_int,
            *[ctypes.c_double] * 2,
            ctypes.POINTER(POINTERS),
        ]
        self.lib.torch_kernels_run.restype = ctypes.c_double
        self.lib.torch_kernels_run.argtypes = [ctypes.c_void_p, ctypes.c_long]
        self.lib.torch_kernels_free.argtypes = [ctypes.c_void_p]
        self.lib.torch_kernels_free.restype = None

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        p, w = problem, problem.workload
        if p.dtype != np.float32:
            return None
        mean, invstd = (value.astype(p.dtype) for value in p.statistics)
        dgamma, dbeta = p.gamma.copy(), p.beta.copy()
        arrays = [p.x, p.dy, p.y, p.dx, p.gamma, p.beta, mean, invstd, p.running_mean, p.running_var, dgamma, dbeta]
        pointers = POINTERS(*(array.ctypes.data for array in arrays))
        layout = ("NCHW", "NHWC", "NC").index(p.layout)
        inner = w.elements // (w.n * w.c)
        job = self.lib.torch_kernels_prepare(
            OPERATIONS.index(operation), w.n, w.c, inner, layout, MOMENTUM, EPS, pointers
        )
        if not job:
            raise RuntimeError(f"PyTorch takes no {w.name} {p.layout}")

        def run(times: int) -> float:
            # mean, invstd, dgamma and dbeta have no other owner than `arrays`.
            seconds: float = self.lib.torch_kernels_run(job, times) if arrays else 0.0
            if seconds < 0:
                raise RuntimeError("PyTorch's kernel failed")
            return seconds

        weakref.finalize(run, self.lib.torch_kernels_free, job)
        return Trial(run, lambda: p.dx if operation == "backward" else p.y)
