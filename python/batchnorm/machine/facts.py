# SPDX-License-Identifier: Apache-2.0
"""Facts about the library that is loaded, and about the machine and its environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import batchnorm as bn
from batchnorm._core.library import lib

# The library reads the variable at its first call, so that each set needs a process; it takes no NumPy.
_ASK = """
import ctypes, sys
name = ctypes.CDLL(sys.argv[1]).bn_isa_name
name.restype = ctypes.c_char_p
sys.exit(name() is None)
"""
_X86_SETS = "avx512", "avx2", "baseline"


def facts() -> dict[str, Any]:
    """Version, ABI, instruction sets, threads and file of the library that is loaded.

    Raises
    ------
    RuntimeError
        BATCHNORM_ISA or BATCHNORM_NUM_THREADS cannot be honoured.

    Examples
    --------
    >>> from batchnorm.machine import facts
    >>> facts()["abi"]
    2
    """
    number = int(lib.bn_version())
    path = Path(lib._name)
    return {
        "version": bn.__version__,
        "library_version": f"{number // 10000}.{number // 100 % 100}.{number % 100}",
        "abi": number // 10000,
        "isa": bn.isa(),
        "isa_available": available(path),
        "threads": bn.get_num_threads(),
        "threads_from": threads_from(),
        "library": str(path),
        "library_bytes": path.stat().st_size,
    }


def available(path: Path) -> list[str]:
    """The instruction sets that the library has and this CPU too, the widest first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ["baseline"]
    return [name for name in _X86_SETS if _has(path, name)]


def _has(path: Path, isa: str) -> bool:
    environment = {**os.environ, "BATCHNORM_ISA": isa}
    command = [sys.executable, "-I", "-S", "-c", _ASK, str(path)]
    return subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL).returncode == 0


def threads_from() -> str:
    """The origin of the number of threads, if no call has set it."""
    if os.environ.get("BATCHNORM_NUM_THREADS"):
        return "BATCHNORM_NUM_THREADS"
    # OpenMP allows a list, one number per nesting level; anything else than numbers from 1 on counts as none.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if first.isascii() and first.isdigit() and 1 <= int(first) < 10**9:
        return "OMP_NUM_THREADS"
    return "the CPUs that this process may use"
