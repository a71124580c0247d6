# SPDX-License-Identifier: Apache-2.0
"""mentions FILE...: fails unless the files and the tests that Markdown names in code exist.

A reader who wants to check a figure needs the test that holds it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = "Include|Sources|Tests|benchmarks|docs|examples|packaging|python|scripts"
FILE = re.compile(rf"(?:{FOLDERS})/[\w./*-]+")
TEST = re.compile(r"test(?:_\w+|[A-Z]\w+)")


def code_of(path: Path) -> Iterator[str]:
    """The pieces of code in lines of text."""
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        yield from (each.content for each in token.children or () if each.type == "code_inline")


def tests() -> set[str]:
    """The names of tests, and of the files that hold them."""
    found = set()
    sources = [path for kind in ("c", "cpp", "swift", "mjs", "py") for path in (ROOT / "Tests").rglob(f"*.{kind}")]
    for path in (*sources, *(ROOT / "python" / "tests").rglob("*.py")):
        found |= {path.stem, *TEST.findall(path.read_text(encoding="utf-8"))}
    return found


def main() -> int:
    there, looked_at, failures = tests(), 0, 0
    for path in map(Path, sys.argv[1:]):
        for code in code_of(path):
            is_file, is_test = FILE.fullmatch(code), TEST.fullmatch(code)
            looked_at += bool(is_file or is_test)
            if (is_file and not any(ROOT.glob(code.rstrip("/")))) or (is_test and code not in there):
                failures += 1
                print(f"{path}: there is no {code}")
    print(f"{looked_at} files and tests are named; {failures} are not there")
    return 1 if failures or not looked_at else 0


if __name__ == "__main__":
    sys.exit(main())
