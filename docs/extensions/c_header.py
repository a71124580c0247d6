# SPDX-License-Identifier: Apache-2.0
"""The directive `c-header`: a C header as a page of the reference, with an anchor for each name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from declarations import Declared, Title, parts
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# Two columns: a few words, and what is said of them. The second column of a formula begins with its equals sign.
ROW = re.compile(r"([A-Za-z][\w ,()]*?)( {2,})([^= ].*)")
# What reads better as code: names of C, calls, and what the comment itself puts in quotes.
CODE = re.compile(r"`(\w+)`|(\w*[a-z0-9]_\w+(?:->\w+)?(?:\(\))?|BN_\w+|BATCHNORM_\w+)")


class CHeader(SphinxDirective):
    """`.. c-header:: PATH`, relative to the document."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        header = Path(path).read_text(encoding="utf-8")
        return self.parse_text_to_nodes("\n".join(reference(header)), allow_section_headings=True)


def reference(header: str) -> Iterator[str]:
    """The header as reStructuredText."""
    yield from section("The contract")
    for part in parts(header):
        if isinstance(part, Title):
            yield from section(part.text)
            yield from prose(part.about)
        elif isinstance(part, Declared):
            yield from declaration(part)
        else:
            yield from prose(part)


def section(title: str) -> list[str]:
    return ["", title, "=" * len(title), ""]


def declaration(declared: Declared) -> Iterator[str]:
    first, *others = declared.signatures
    directive = f".. c:{declared.kind}:: "
    yield from ("", directive + first, *(" " * len(directive) + other for other in others), "")
    yield from indented(prose(declared.about))
    if declared.value:
        yield from (f"    ``{declared.value.strip()}``", "")
    for part in declared.inside:
        yield from indented(declaration(part) if isinstance(part, Declared) else prose(part))


def indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" if line else "" for line in lines)


def prose(comment: str) -> Iterator[str]:
    """A comment: paragraphs, bullets, and what it indents."""
    waiting: list[str] = []
    bullet = False
    for line in [*comment.splitlines(), ""]:
        is_first = line.startswith("  - ")
        bullet = is_first or (bullet and line.startswith("    "))
        if line.startswith("    ") and not bullet:
            waiting.append(line[4:])
            continue
        if waiting:
            yield from block(waiting)
            waiting = []
        if is_first:
            yield from ("", "- " + text(line[4:]))
        else:
            yield "  " * bullet + text(line.strip())


def block(lines: list[str]) -> Iterator[str]:
    """Lines that a comment indents: two columns, or a formula as it stands."""
    rows = [ROW.fullmatch(line) for line in lines]
    column = rows[0].start(3) if rows[0] else 0
    if column and all(row.start(3) == column if row else line[:column].isspace() for row, line in zip(rows, lines)):
        for row, line in zip(rows, lines):
            if row:
                yield from ("", term(row[1]))
            yield f"    {text(row[3] if row else line.strip())}"
        yield ""
    else:
        yield from ("", "::", "", *indented(lines), "")


def term(names: str) -> str:
    return ", ".join(f"``{name}``" if name.isidentifier() else escaped(name) for name in names.split(", "))


def text(prose: str) -> str:
    """Words of a comment, of which nothing is markup but what is code."""
    result, end = "", 0
    for code in CODE.finditer(prose):
        result += escaped(prose[end : code.start()]) + f"\\ ``{code[1] or code[2]}``\\ "
        end = code.end()
    return result + escaped(prose[end:])


def escaped(prose: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", prose)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
