# SPDX-License-Identifier: Apache-2.0
"""The directive `c-header`: a section of a C header as a page of the reference, with an anchor for each name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Union

from declarations import Declared, Title, parts
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Part = Union[Title, Declared, str]

# Two columns: a few words, and their explanation. The second column of a formula begins with its equals sign.
ROW = re.compile(r"([A-Za-z][\w ,()]*?)( {2,})([^= ].*)")
# Shown as code: names of C, calls, and words that the comment itself puts in backquotes.
CODE = re.compile(r"`(\w+)`|(\w*[a-z0-9]_\w+(?:->\w+)?(?:\(\))?|BN_\w+|BATCHNORM_\w+)")


class CHeader(SphinxDirective):
    """`.. c-header:: PATH`, relative to the document: what stands above the first title.

    `:section:` is the title of another section. `:first:` and `:last:` are the declarations at which a part of it
    begins and ends.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {
        "section": directives.unchanged,
        "first": directives.unchanged,
        "last": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        header = Path(path).read_text(encoding="utf-8")
        options = self.options
        try:
            chosen = cut(section(header, options.get("section")), options.get("first"), options.get("last"))
        except ValueError as error:
            raise self.error(str(error)) from error
        return self.parse_text_to_nodes("\n".join(reference(chosen)))


def section(header: str, title: str | None) -> list[Part]:
    """The parts below a title; without one, those above the first."""
    found: list[Part] = []
    inside = title is None
    for part in parts(header):
        if isinstance(part, Title):
            inside = part.text == title
        if inside:
            found.append(part)
    if not found:
        raise ValueError(f"the header has no section {title}")
    return found


def cut(chosen: list[Part], first: str | None, last: str | None) -> list[Part]:
    names = [name_of(part) for part in chosen]
    for name in (first, last):
        if name and name not in names:
            raise ValueError(f"the section has no {name}")
    return chosen[names.index(first) if first else 0 : names.index(last) + 1 if last else None]


def name_of(part: Part) -> str:
    """The name that a part declares; nothing for a comment or a title."""
    found = re.search(r"(\w+)(?:\(.*)?$", part.signatures[0], re.DOTALL) if isinstance(part, Declared) else None
    return found[1] if found else ""


def reference(chosen: Iterable[Part]) -> Iterator[str]:
    """Parts of the header as reStructuredText."""
    for part in chosen:
        if isinstance(part, Declared):
            yield from declaration(part)
        else:
            yield from prose(part.about if isinstance(part, Title) else part)


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
