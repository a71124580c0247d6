# SPDX-License-Identifier: Apache-2.0
"""The README's quick starts, typed as they stand, print what the README says they print."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY
from typed import run, run_c


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of the README in this language, each with the output that is printed below it."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    code, others = r"((?:(?!```).)*)```", r"(?:(?!```(?:c|python)\n).)*?"
    return re.findall(rf"```{language}\n{code}{others}```text\n(.*?)```", readme, re.DOTALL)


def test_all_are_found() -> None:
    assert [len(blocks("c")), len(blocks("python"))] == [1, 1]


def test_python() -> None:
    [(code, output)] = blocks("python")
    assert run([sys.executable, "-c", code]) == output


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_c_quick_start(compiler: str, tmp_path: Path) -> None:
    [(code, output)] = blocks("c")
    assert run_c(code, tmp_path, compiler) == output
