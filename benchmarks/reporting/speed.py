# SPDX-License-Identifier: Apache-2.0
"""The tables of results.csv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.rows import Row
from harness.workloads import OPERATIONS
from peers import FLOORS, OURS, OURS_FROM_C, TWO_READS

from .markdown import digits, geometric_mean, ratio, table

Case = tuple[str, str, str]


def peers_in(rows: Iterable[Row]) -> list[str]:
    return [name for name in dict.fromkeys(row.system for row in rows) if name not in (OURS, OURS_FROM_C, *FLOORS)]


def split(rows: list[Row]) -> Iterator[tuple[str, int, str, list[Row]]]:
    """Splits rows by instruction set, number of threads and operation."""
    for isa in dict.fromkeys(row.isa for row in rows):
        for threads in sorted({row.threads for row in rows if row.isa == isa}):
            for operation in OPERATIONS:
                part = [r for r in rows if (r.isa, r.threads, r.operation) == (isa, threads, operation)]
                if part:
                    yield isa, threads, operation, part


def spread_of(values: list[float], worst: float) -> str:
    """Geometric mean and, in brackets, the worst case."""
    return f"{ratio(geometric_mean(values))} ({ratio(worst)})"


def summary(rows: list[Row], cache_bytes: int) -> str:
    """One line for each instruction set, number of threads, operation and layout."""
    names = peers_in(rows)
    body = []
    for isa, threads, operation, part in split(rows):
        for layout in dict.fromkeys(row.layout for row in part):
            here = [row for row in part if row.layout == layout]
            large = [r for r in here if r.system == OURS_FROM_C and r.mbytes * 1e6 > cache_bytes]
            floors = [r.ratio_to_floor for r in large]
            cells = [spread_of(floors, max(floors)) if floors else ""]
            for name in names:
                times = [r.ratio_to_ours for r in here if r.system == name]
                cells.append(spread_of(times, min(times)) if times else "")
            body.append([isa, str(threads), operation, layout, *cells])
    return table(["isa", "threads", "operation", "layout", "/ floor", *(f"{n} / ours" for n in names)], body, words=4)


def details(part: list[Row]) -> str:
    """Every case of one operation."""
    names = peers_in(part)
    two_reads = any(row.system == TWO_READS for row in part)
    head = ["workload", "layout", "dtype", "µs", "±", "µs from C", "GB/s", "/ floor"]
    head += ["/ two reads"] * two_reads + [f"{name} / ours" for name in names]
    by_case: dict[Case, dict[str, Row]] = {}
    for row in part:
        by_case.setdefault(row.case, {})[row.system] = row
    body = []
    for case, systems in by_case.items():
        if OURS not in systems or OURS_FROM_C not in systems:
            continue
        python, c = systems[OURS], systems[OURS_FROM_C]
        cells = [digits(python.median_us), digits(python.mad_us), digits(c.median_us)]
        cells += [digits(c.gb_per_s), ratio(c.ratio_to_floor)]
        if two_reads:
            floor = systems.get(TWO_READS)
            cells.append(ratio(c.median_us / floor.median_us if floor else None))
        cells += [ratio(systems[name].ratio_to_ours if name in systems else None) for name in names]
        body.append([*case, *cells])
    return table(head, body, words=3)


def instruction_sets(rows: list[Row]) -> str:
    """Times of the floor under each instruction set, side by side."""
    isas = list(dict.fromkeys(row.isa for row in rows))
    cells: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        if row.system == OURS_FROM_C:
            cells.setdefault((str(row.threads), row.operation, *row.case), {})[row.isa] = row.ratio_to_floor
    body = [[*key, *(ratio(found.get(isa)) for isa in isas)] for key, found in cells.items()]
    return table(["threads", "operation", "workload", "layout", "dtype", *isas], body, words=5)
