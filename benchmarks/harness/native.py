# SPDX-License-Identifier: Apache-2.0
"""Compiles the helpers in C and C++, and loads them."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
BUILD = HERE.parent / ".build-bench"


def compiled(source: str, *flags: str) -> ctypes.CDLL:
    """The shared library made of one source file for this very machine, unless it is there already."""
    path = HERE / source
    library = BUILD / f"{path.stem}.so"
    if not library.exists() or library.stat().st_mtime < path.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        compiler = os.environ.get("CXX", "c++") if path.suffix == ".cpp" else os.environ.get("CC", "cc")
        optimize = ["-O3", "-march=native", "-Wall", "-Wextra", "-fPIC", "-shared", "-fopenmp"]
        command = [*shlex.split(compiler), *optimize, str(path), "-o", str(library), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{source} does not compile: {done.stderr.strip()}")
    return ctypes.CDLL(str(library))
