# SPDX-License-Identifier: Apache-2.0
"""Docstrings are written to be read as they are: here, `f()` becomes code, and a star is a star."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

CALL = re.compile(r"(?<![\w.`\"'])([A-Za-z_][\w.]*\(\))(?!`)")


def prose(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """The lines, and whether each is prose: not of a table, a doctest, or a block that `::` began."""
    literal: int | None = None
    table = doctest = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        is_rule = re.fullmatch(r"=+(  +=+)+", line) is not None
        table = is_rule or (table and bool(line.strip()))
        yield line, literal is None and not table and not doctest
        if line.rstrip().endswith("::") and literal is None:
            literal = indent


def process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Changes a docstring before numpydoc looks at it."""
    lines[:] = [CALL.sub(r"``\1``", line).replace("*", "\\*") if is_prose else line for line, is_prose in prose(lines)]


def shorten(app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: Any, result: Any) -> Any:
    """A default that is a type, as one writes it."""
    return arguments and re.sub(r"<class '([\w.]+)'>", r"\1", arguments), result


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
