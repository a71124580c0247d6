# SPDX-License-Identifier: Apache-2.0
"""The table of mutants: which lines of which file were changed into what, and who noticed.

A row finds its place by the text before, at the line that it names or the nearest one: it stays true when the file
changes elsewhere. `killer` is a test's id, `timeout`, `equivalent: ` and a reason, or `survived`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass
class Row:
    """A mutant."""

    file: str
    line: int
    before: str
    after: str
    killer: str = ""

    @property
    def survived(self) -> bool:
        return self.killer in ("", "survived")

    @property
    def is_equivalent(self) -> bool:
        return self.killer.startswith("equivalent: ")


def compared(file: str, source: str, mutant: str) -> Row:
    """The row of a mutant: the lines in which it differs, from the first line's first word on."""
    old, new = source.splitlines(), mutant.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new)) if a != b)
    same = next(i for i, (a, b) in enumerate(zip(reversed(old), reversed(new))) if a != b)
    last = [len(lines) - min(same, min(len(old), len(new)) - first - 1) for lines in (old, new)]
    return Row(file, first + 1, "\n".join(old[first : last[0]]).lstrip(), "\n".join(new[first : last[1]]).lstrip())


def mutated(source: str, row: Row) -> str | None:
    """The source with a row's change, or None where its text is no more. Moves the row's line to where it is."""
    height = row.before.count("\n") + 1
    lines = source.splitlines()
    found = [i for i in range(len(lines)) if "\n".join(lines[i : i + height]).lstrip() == row.before]
    if not found:
        return None
    at = min(found, key=lambda i: abs(i + 1 - row.line))
    row.line = at + 1
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return "\n".join([*lines[:at], indent + row.after, *lines[at + height :]]) + "\n"


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = [list(map(_plain, line.split("\t"))) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [Row(file, int(line), *rest) for file, line, *rest in rows]


def write(path: Path, rows: list[Row]) -> None:
    lines = ["\t".join(field.name for field in fields(Row))]
    lines += ["\t".join(_escaped(str(each)) for each in astuple(row)) for row in rows]
    beside = path.with_suffix(".part")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _plain(text: str) -> str:
    parts = (part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))
    return "\\".join(parts)
