# SPDX-License-Identifier: Apache-2.0
"""Code blocks of Markdown, run as they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from helpers import REPOSITORY

from batchnorm._core import library


def run(command: list[str], **environment: str) -> str:
    """Runs a program, which has to end well, and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_c(code: str, folder: Path, compiler: str = "cc") -> str:
    """Links a C program with the library under test, and returns its output."""
    source, program = folder / "program.c", folder / "program"
    source.write_text(code, encoding="utf-8")
    shutil.copy(library.lib._name, folder / "libbatchnorm.so.2")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-I", str(REPOSITORY / "Include"), str(source)]
    if "#pragma omp" in code:
        command.append("-fopenmp")
    run([*command, str(folder / "libbatchnorm.so.2"), f"-Wl,-rpath,{folder}", "-o", str(program)])
    return run([str(program)])
