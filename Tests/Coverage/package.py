# SPDX-License-Identifier: Apache-2.0
"""Lines and branches of the Python package that the tests reach, from what `coverage json` says.

A place is a branch that is never taken from a line that is reached, written as both lines, or the first of several
lines that nothing leads to, such as a function that is never called.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from places import ROOT, Measure, Place


def measures(export: Path) -> list[Measure]:
    files = json.loads(export.read_text())["files"]
    return [measured(Path(name).resolve(), found) for name, found in files.items()]


def measured(path: Path, found: dict[str, Any]) -> Measure:
    file = str(path.relative_to(ROOT))
    summary = found["summary"]
    return Measure(
        file,
        {"lines": summary["covered_lines"], "branches": summary["covered_branches"]},
        {"lines": summary["num_statements"], "branches": summary["num_branches"]},
        list(unreached(file, ["", *path.read_text().splitlines()], found)),
    )


def unreached(file: str, source: list[str], found: dict[str, Any]) -> list[Place]:
    missing = found["missing_lines"]
    branches = [branch for branch in found["missing_branches"] if branch[0] not in missing]
    places = []
    for start, end in branches:
        target = source[end].strip() if end > 0 else "leaves"
        places.append(Place(file, start, f"{source[start].strip()} -> {target}"))
    entered = {end for _, end in branches}
    statements = sorted(missing + found["executed_lines"])
    before = dict(zip(statements[1:], statements))
    alone = [line for line in missing if line not in entered and before.get(line) not in missing]
    places += [Place(file, line, source[line].strip()) for line in alone]
    return sorted(places, key=lambda place: place.line)
