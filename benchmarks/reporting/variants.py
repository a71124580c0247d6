# SPDX-License-Identifier: Apache-2.0
"""The tables of variants.csv."""

from __future__ import annotations

from collections.abc import Iterator

from harness.rows import VariantRow
from harness.variants import VARIANTS
from harness.workloads import OPERATIONS
from peers import COPY, OURS

from .markdown import digits, ratio, table
from .others import SMALLEST
from .speed import spread_of

KEY = """\
Each variant is one call of this library from Python: "relu" and "silu" follow batch norm, "add + relu" adds a residual
before (backward gives its gradient, too, into a fourth tensor), "masked" leaves a quarter of the positions, drawn at
random, out of the statistics and sets them to zero. The columns with these names are times over that of the plain call
with the same elements. "/ float32" is the plain call over that with elements of float32, "/ memcpy" over a copy of the
same tensor. "torch" calls batch norm and then operators that work in place: so many times as long as the one call.
The first table has geometric means without the tiny tensor, where a call costs more than its elements; in brackets: the
worst case.
"""
FUSED = VARIANTS[1:]


def peers_in(rows: list[VariantRow]) -> list[tuple[str, str]]:
    """Systems besides this one, with the variants that they have."""
    return list(dict.fromkeys((row.system, row.variant) for row in rows if row.system not in (OURS, COPY)))


def head_of(peers: list[tuple[str, str]]) -> list[str]:
    return [*FUSED, *(f"{system} / ours, {variant}" for system, variant in peers)]


def split(rows: list[VariantRow]) -> Iterator[tuple[int, str, list[VariantRow]]]:
    """Splits rows by number of threads and operation."""
    for threads in sorted({row.threads for row in rows}):
        for operation in OPERATIONS:
            part = [row for row in rows if (row.threads, row.operation) == (threads, operation)]
            if part:
                yield threads, operation, part


def summary(rows: list[VariantRow]) -> str:
    """One line for each number of threads, operation and kind of elements."""
    peers = peers_in(rows)
    # Below, a call costs more than its elements.
    rows = [row for row in rows if 1e6 * row.mbytes >= SMALLEST * (4 if row.dtype == "float32" else 2)]
    body = []
    for threads, operation, part in split(rows):
        for dtype in dict.fromkeys(row.dtype for row in part):
            here = [row for row in part if row.dtype == dtype]
            plain = [row for row in here if (row.system, row.variant) == (OURS, "plain")]
            cells = [
                worst_is_most([row.ratio_to_float32 for row in plain]) if dtype != "float32" else "",
                worst_is_most([row.ratio_to_copy for row in plain]),
            ]
            for variant in FUSED:
                found = [r.ratio_to_plain for r in here if (r.system, r.variant) == (OURS, variant)]
                cells.append(worst_is_most(found))
            for peer in peers:
                times = [row.ratio_to_ours for row in here if (row.system, row.variant) == peer]
                cells.append(spread_of(times, min(times)) if times else "")
            body.append([str(threads), operation, dtype, *cells])
    return table(["threads", "operation", "dtype", "/ float32", "/ memcpy", *head_of(peers)], body, words=3)


def worst_is_most(values: list[float]) -> str:
    return spread_of(values, max(values)) if values else ""


def details(part: list[VariantRow], peers: list[tuple[str, str]]) -> str:
    """Every shape of one operation."""
    found = {(r.workload, r.layout, r.dtype, r.system, r.variant): r for r in part}
    body = []
    for case in dict.fromkeys((r.workload, r.layout, r.dtype) for r in part):
        plain = found.get((*case, OURS, "plain"))
        if plain is None:
            continue
        cells = [digits(plain.median_us), digits(plain.mad_us)]
        cells += [ratio(plain.ratio_to_float32) if plain.dtype != "float32" else "", ratio(plain.ratio_to_copy)]
        fused = [found.get((*case, OURS, variant)) for variant in FUSED]
        cells += [ratio(row.ratio_to_plain if row else None) for row in fused]
        others = [found.get((*case, *peer)) for peer in peers]
        cells += [ratio(row.ratio_to_ours if row else None) for row in others]
        body.append([*case, *cells])
    head = ["workload", "layout", "dtype", "µs, plain", "±", "/ float32", "/ memcpy", *head_of(peers)]
    return table(head, body, words=3)


def sections(rows: list[VariantRow]) -> Iterator[tuple[str, str]]:
    """Headings and what is below them."""
    if rows:
        yield "Variants", f"{KEY}\n{summary(rows)}"
    for threads, operation, part in split(rows):
        yield f"Variants of {operation}, {threads} thread{'s' * (threads > 1)}", details(part, peers_in(part))
