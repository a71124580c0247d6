# SPDX-License-Identifier: Apache-2.0
"""A C header taken apart: titles, comments, and declarations with what is said of them.

The header is written as Include/batchnorm.h is: a comment about all of it; a comment that begins with a title between
dashes above each section; a comment right above what it is about, or behind it on its line. Any other comment
is an error, so that nothing is left out of the reference in silence.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

COMMENT = r"/\*.*?\*/"
PART = re.compile(
    rf"(?P<comment>{COMMENT})"
    r"|\#define (?P<macro>\w+(?:\([^)]*\))?) (?P<value>(?:[^\n]*\\\n)*[^\n]*)"
    r"|typedef (?P<kind>enum|struct) (?P<name>\w+) \{\n(?P<body>.*?)\n\} \w+;"
    r"|(?P<prototype>\w[^;{}#]*\));",
    re.DOTALL,
)
MEMBER = {
    "enum": re.compile(rf"{COMMENT}|\w+(?: = \w+)?,?", re.DOTALL),
    "struct": re.compile(rf"{COMMENT}|\w[^;]*;", re.DOTALL),
}


class Title(NamedTuple):
    """A section's title, and the comment below it."""

    text: str
    about: str


class Declared(NamedTuple):
    """A declaration: its kind, its text, the comment about it, and its members."""

    kind: str
    signatures: list[str]
    about: str
    value: str = ""
    inside: tuple[Declared | str, ...] = ()


def parts(header: str) -> Iterator[Title | Declared | str]:
    """The header from its first comment to its last declaration; a text is a comment of its own."""
    about, guarded = re.match(rf"({COMMENT})(.*)", header, re.DOTALL).groups()
    yield plain(about).replace("SPDX-License-Identifier: Apache-2.0\n", "").strip("\n")
    declarations = guarded.partition('extern "C" {\n#endif\n')[2].partition("#ifdef __cplusplus")[0]
    about, end = "", 0
    for part in PART.finditer(declarations):
        between = declarations[end : part.start()]
        if between.strip():
            raise ValueError(f"neither comment nor declaration: {between.strip()}")
        if about and between.count("\n") > 1:
            yield about
            about = ""
        end = part.end()
        if title := re.match(r"/\* -{2,} (.*?) -{2,}", part["comment"] or ""):
            yield Title(title[1], plain("/*" + part[0][title.end() :]))
        elif part["comment"]:
            about = plain(part[0])
        else:
            yield declared(part, about)
            about = ""
    if declarations[end:].strip():
        raise ValueError(f"neither comment nor declaration: {declarations[end:].strip()}")


def declared(part: re.Match[str], about: str) -> Declared:
    if part["macro"]:
        return Declared("macro", [part["macro"]], about, value=re.sub(r"\s*\\\n\s*", " ", part["value"]))
    if part["prototype"] and part["prototype"].startswith("typedef "):
        return Declared("type", [re.sub(r"\s+", " ", part["prototype"].removeprefix("typedef "))], about)
    if part["prototype"]:
        return Declared("function", [re.sub(r"\s+", " ", part["prototype"])], about)
    return Declared(part["kind"], [part["name"]], about, inside=tuple(members(part["kind"], part["body"])))


def members(kind: str, body: str) -> Iterator[Declared | str]:
    """The members of an enum or a struct. A comment above some is about those of them that have none behind them."""
    found: list[tuple[str, list[str], str]] = []  # the comment above, the declaration, the comment behind
    above, end = "", 0
    for part in MEMBER[kind].finditer(body):
        own_line = not end or "\n" in body[end : part.start()]
        end = part.end()
        if not part[0].startswith("/*"):
            found.append((above, signatures(part[0].rstrip(",;")), ""))
            above = ""
        elif own_line:
            above = plain(part[0])
        else:
            found[-1] = (*found[-1][:2], behind(part[0]))
    directive = {"enum": "enumerator", "struct": "member"}[kind]
    while found:
        above, names, about = found.pop(0)
        if above and about:
            yield above
        while above and not about and found and not found[0][0] and not found[0][2]:
            names += found.pop(0)[1]
        yield Declared(directive, names, about or above)


def signatures(code: str) -> list[str]:
    """`double low, high` are two of a type."""
    first, *others = code.split(", ")
    kind = first.rpartition(" ")[0]
    return [first, *(f"{kind} {other}" for other in others)]


def plain(comment: str) -> str:
    """A comment without its frame."""
    body = re.sub(r"^/\*+ ?|\s*\*/\s*$", "", comment)
    return re.sub(r"(?m)^ *\* ?", "", body).strip("\n")


def behind(comment: str) -> str:
    """The same of one behind code, whose lines begin below one another."""
    first, _, rest = comment.removeprefix("/*").removesuffix("*/").strip().partition("\n")
    return f"{first}\n{textwrap.dedent(rest)}".strip()
