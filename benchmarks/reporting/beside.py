# SPDX-License-Identifier: Apache-2.0
"""The tables of beside.csv: the library and its peers, all called from C."""

from __future__ import annotations

from collections import defaultdict

from harness.rows import BesideRow
from harness.workloads import OPERATIONS
from peers import FLOORS, OURS_FROM_C

from .markdown import geometric_mean, ratio, table

KEY = """\
The peer's time over ours, float32, both called from C: above 1, this library is faster. "Warm": after calls like it.
"Cold": after a pass over memory larger than the caches. "Reader": with a pass over the result behind the call. These
three are geometric means. "Worst" and "slower" are of warm calls: the least ratio of medians (in brackets: of tenth
percentiles), and the cases that take us more than 1.05 times as long. Beside PyTorch's kernels, tensors of 64 KB or
more count.
"""
SMALLEST = {"torch kernels": 65536}  # bytes
Case = tuple[str, str, str]  # workload, layout, operation
Group = tuple[str, int, str, str]  # peer, threads, layout, operation


def groups(rows: list[BesideRow]) -> dict[Group, list[BesideRow]]:
    """The peers' rows by group; those of NC count as channels last."""
    found: dict[Group, list[BesideRow]] = defaultdict(list)
    for row in rows:
        if row.system not in (OURS_FROM_C, *FLOORS) and 1e6 * row.mbytes >= SMALLEST.get(row.system, 0):
            layout = "channels last" if row.layout in ("NHWC", "NC") else "channels first"
            found[row.system, row.threads, layout, row.operation].append(row)
    return found


def worst(rows: list[BesideRow]) -> str:
    """One line for each peer, number of threads, layout and operation."""
    ours = {(r.threads, r.workload, r.layout, r.operation, r.state): r for r in rows if r.system == OURS_FROM_C}
    body = []
    in_order = sorted(groups(rows).items(), key=lambda group: (*group[0][:3], OPERATIONS.index(group[0][3])))
    for (peer, threads, layout, operation), here in in_order:
        of = {state: [row for row in here if row.state == state] for state in ("warm", "cold", "reader")}
        means = [ratio(geometric_mean(row.ratio_to_ours for row in of[state])) for state in of]
        least = min(of["warm"], key=lambda row: row.ratio_to_ours)
        mine = ours[threads, least.workload, least.layout, operation, "warm"]
        slower = sum(row.ratio_to_ours < 1 / 1.05 for row in of["warm"])
        cells = [ratio(least.ratio_to_ours) + f" ({ratio(least.p10_us / mine.p10_us)})", least.workload]
        body.append([peer, operation, layout, str(threads), *means, *cells, f"{slower} of {len(of['warm'])}"])
    head = ["peer", "operation", "layout", "threads", "warm", "cold", "reader", "worst", "at", "slower"]
    return f"{KEY}\n{table(head, body, words=3)}"
