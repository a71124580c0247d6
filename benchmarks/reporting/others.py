# SPDX-License-Identifier: Apache-2.0
"""The tables of errors.csv, scaling.csv and sweep.csv."""

from __future__ import annotations

from collections import defaultdict

from harness.rows import ErrorRow, ScalingRow, SweepRow
from peers import OURS_FROM_C

from .markdown import digits, ratio, table

SMALLEST = 2**14  # elements: below, a call costs more than its elements


def errors(rows: list[ErrorRow]) -> str:
    means = list(dict.fromkeys(row.mean_over_std for row in rows))
    found = {(row.system, row.mean_over_std): row.error for row in rows}
    systems = [name for name in dict.fromkeys(row.system for row in rows) if name != OURS_FROM_C]
    head = ["system", *(f"mean / std = {mean:g}" for mean in means)]
    return table(head, [[name, *(digits(found.get((name, mean))) for mean in means)] for name in systems])


def scaling(rows: list[ScalingRow]) -> str:
    columns = list(dict.fromkeys((row.system, row.threads) for row in rows if row.threads > 1))
    cells: dict[tuple[str, ...], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        system = row.system if row.system == "batchnorm" else "floor"
        cells[row.operation, row.layout, str(row.elements)][system, row.threads] = row.speedup
    columns = list(dict.fromkeys(("batchnorm" if s == "batchnorm" else "floor", t) for s, t in columns))
    head = ["operation", "layout", "elements", *(f"{system}, {threads} threads" for system, threads in columns)]
    return table(head, [[*key, *(ratio(found.get(c)) for c in columns)] for key, found in cells.items()], words=2)


def steps(rows: list[SweepRow]) -> str:
    """The neighbours that differ most in the cost of an element. A cliff shows as a step far above 1."""
    curves: dict[tuple[str, ...], list[SweepRow]] = defaultdict(list)
    for row in rows:
        if row.system == "batchnorm" and row.elements >= SMALLEST:
            curves[row.operation, row.layout, row.axis, str(row.threads)].append(row)
    body = []
    for key, curve in curves.items():
        pairs = [(b.ns_per_element / a.ns_per_element, a, b) for a, b in zip(curve, curve[1:])]
        if pairs:
            up, a, b = max(pairs, key=lambda pair: pair[0])
            body.append([*key, ratio(up), f"{a.value} → {b.value}"])
    return table(["operation", "layout", "growing", "threads", "largest step up", "between"], body, words=3)
