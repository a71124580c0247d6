# SPDX-License-Identifier: Apache-2.0
"""The README's quick starts, typed as they stand, print what the README says they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchnorm import _c_api

ROOT = Path(__file__).resolve().parents[2]


def blocks(language: str) -> list[tuple[str, str]]:
    """What is shown in this language, and the output that is printed below it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code, others = r"((?:(?!```).)*)```", r"(?:(?!```(?:c|python)\n).)*?"
    return re.findall(rf"```{language}\n{code}{others}```text\n(.*?)```", readme, re.DOTALL)


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_are_found() -> None:
    assert [len(blocks("c")), len(blocks("python"))] == [1, 2]


@pytest.mark.parametrize("index", [0, 1])
def test_python(index: int) -> None:
    code, output = blocks("python")[index]
    assert run([sys.executable, "-c", code]) == output


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_c_quick_start(compiler: str, tmp_path: Path) -> None:
    [(code, output)] = blocks("c")
    source = tmp_path / "quickstart.c"
    source.write_text(code, encoding="utf-8")
    shutil.copy(_c_api.lib._name, tmp_path / "libbatchnorm.so.1")
    program = tmp_path / "quickstart"
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "Include"), str(source)]
    run([*command, str(tmp_path / "libbatchnorm.so.1"), f"-Wl,-rpath,{tmp_path}", "-o", str(program)])
    assert run([str(program)]) == output
