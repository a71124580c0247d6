# SPDX-License-Identifier: Apache-2.0
"""Lines and regions of the Swift sources that the tests reach, from what `llvm-cov export` says.

A region is what a condition, a loop or a closure guards, up to where paths meet again. The loops are compiled once for
each instruction set and once for each element: a region counts as reached if it is in any of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from places import ROOT, Measure, Place

CODE = 0
# JAX, by which most of it is tested, is not among the packages that are installed for this.
OF_JAX = ROOT / "Sources/BatchNorm/XLA"
Span = tuple[int, int, int, int]


def measures(export: Path) -> list[Measure]:
    counts: dict[Path, dict[Span, int]] = {}
    for function in json.loads(export.read_text())["data"][0]["functions"]:
        files = [Path(name).resolve() for name in function["filenames"]]
        for *span, count, file, _, kind in function["regions"]:
            if kind == CODE:
                regions = counts.setdefault(files[file], {})
                regions[tuple(span)] = max(count, regions.get(tuple(span), 0))
    return [measured(path, regions) for path, regions in counts.items() if OF_JAX not in path.parents]


def measured(path: Path, counts: dict[Span, int]) -> Measure:
    file = str(path.relative_to(ROOT))
    source = path.read_text().splitlines()
    # Outer regions before those inside them.
    spans = sorted(counts, key=lambda span: (span[:2], (-span[2], -span[3])))
    lines = reached_lines(source, spans, counts)
    unreached: list[Span] = []
    for span in spans:
        if counts[span] == 0 and not any(is_inside(span, outer) for outer in unreached):
            unreached.append(span)
    return Measure(
        file,
        {"lines": sum(lines), "regions": sum(count > 0 for count in counts.values())},
        {"lines": len(lines), "regions": len(counts)},
        [Place(file, span[0], text(source, span)) for span in unreached],
    )


def is_inside(span: Span, outer: Span) -> bool:
    return outer[:2] <= span[:2] and span[2:] <= outer[2:]


def reached_lines(source: list[str], spans: list[Span], counts: dict[Span, int]) -> list[bool]:
    """For each line with code in a region: whether that which it begins in was reached, or one that begins in it."""
    lines = []
    for number, line in enumerate(source, 1):
        code = line.strip()
        if code.startswith(("//", "#")) or not any(map(str.isalnum, code)):
            continue
        start = number, len(line) - len(line.lstrip()) + 1
        around = [span for span in spans if span[:2] <= start < span[2:]]
        here = [span for span in spans if span[0] == number and span[:2] > start]
        if around or here:
            lines.append(any(counts[span] > 0 for span in around[-1:] + here))
    return lines


def text(source: list[str], span: Span) -> str:
    """The line that a region begins in, behind that which opens the parentheses or braces that it begins by closing."""
    first = last = span[0] - 1
    while first > 0 and (source[first].strip()[0] in ")}{" or is_open(source[first : last + 1])):
        first -= 1
    parts = [source[first].strip(), source[last].strip()]
    return parts[0] if first == last else (" " if last == first + 1 else " … ").join(parts)


def is_open(lines: list[str]) -> bool:
    joined = "".join(lines)
    return lines[-1].strip()[0] in ")}" and any(joined.count(a) < joined.count(b) for a, b in ("()", "{}"))
