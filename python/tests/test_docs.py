# SPDX-License-Identifier: Apache-2.0
"""The examples in docs/, typed one after the other as they stand, print what stands below them, and nothing else."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY
from typed import run_c

from batchnorm._core import library

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The code blocks of a page in this language, each with the output that is printed right below it."""
    return [
        (code, output) for kind, code, output in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language
    ]


def pages(language: str) -> Any:
    with_some = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", with_some, ids=lambda page: page.stem)


def test_pages_are_found() -> None:
    assert {"c", "migrating", "numbers", "python", "runtimes"} <= {page.stem for page in PAGES}


@pages("python")
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one session: names that a block defines are there in the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHNORM_LIBRARY", library.lib._name)
    session: dict[str, Any] = {"__name__": "__main__"}
    for code, output in blocks(page, "python"):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), session)
        assert printed.getvalue() == output, code


@pages("c")
def test_c(page: Path, tmp_path: Path) -> None:
    """A block with a main is a program; the others are one, in order."""
    pieces = []
    for code, output in blocks(page, "c"):
        if "int main(" in code:
            assert run_c(code, tmp_path) == output, code
        else:
            pieces.append((code, output))
    body = 'printf("\\f");\n'.join(code for code, _ in pieces)
    program = f"#include <batchnorm.h>\n#include <stdio.h>\nint main(void) {{\n{body}return 0;\n}}\n"
    if pieces:
        assert run_c(program, tmp_path).split("\f") == [output for _, output in pieces], program
