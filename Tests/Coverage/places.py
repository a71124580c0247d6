# SPDX-License-Identifier: Apache-2.0
"""Places that no test reaches, and the list of those that are answered by a reason.

A place is known by its file and its text, not by its line, so that the list stays true when lines move. A text that is
there twice stands in the list twice. A reason that begins with "at times" is for what depends on the machine, or on
which thread comes first: its place may be reached.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("unreached.txt")


@dataclasses.dataclass(frozen=True)
class Place:
    """A line, and the text that stands for it in the list."""

    file: str
    line: int
    text: str


@dataclasses.dataclass
class Measure:
    """One file, as far as the tests reach it: `reached` and `all` are numbers of each kind."""

    file: str
    reached: dict[str, int]
    all: dict[str, int]
    unreached: list[Place]


def listed() -> list[tuple[str, str, str]]:
    """File, text and reason of each entry, `file: text: reason`. A text may have colons, a reason none."""
    entries = []
    for number, line in enumerate(LIST.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        file, _, rest = line.partition(": ")
        text, _, reason = rest.rpartition(": ")
        if not (file and text and reason):
            raise SystemExit(f"{LIST.name}:{number} is not `file: text: reason`")
        entries.append((file, text, reason))
    return entries


def report(measures: list[Measure], folders: tuple[str, ...]) -> str:
    """Prints what each file has, what is not answered, and the percentages; gives `N passed, M failed` files."""
    answered = Counter((file, text) for file, text, _ in listed() if file.startswith(folders))
    failed = set()
    for measure in sorted(measures, key=lambda measure: measure.file):
        shares = ", ".join(f"{measure.reached[kind]} of {measure.all[kind]} {kind}" for kind in measure.all)
        print(f"{measure.file}: {shares}")
        for place in measure.unreached:
            if answered[place.file, place.text] > 0:
                answered[place.file, place.text] -= 1
                continue
            failed.add(place.file)
            print(f"  not reached, and not in {LIST.name}, at line {place.line}:\n    {place.file}: {place.text}: ")
    varies = {(file, text) for file, text, reason in listed() if reason.startswith("at times")}
    for (file, text), count in answered.items():
        if count > 0 and (file, text) not in varies:
            failed.add(file)
            print(f"  in {LIST.name}, but reached or not there (any more):\n    {file}: {text}: ")
    print(f"answered by a reason: {sum(file.startswith(folders) for file, _, _ in listed())}")
    for kind in measures[0].all:
        reached, there = (sum(counts[kind] for counts in each) for each in zip(*both(measures)))
        print(f"{kind}: {100 * reached / there:.2f} % ({reached} of {there})")
    return f"{len(measures) - len(failed)} passed, {len(failed)} failed"


def both(measures: list[Measure]) -> list[tuple[dict[str, int], dict[str, int]]]:
    return [(measure.reached, measure.all) for measure in measures]
