# SPDX-License-Identifier: Apache-2.0
"""The time of a call while its output moves through a page, a cache line at a time: a load that follows a store to the
same place in another page waits for it, and nobody chooses where in a page malloc puts a tensor.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from harness import rows
from harness.problem import PAGE, Problem
from harness.rows import OffsetRow
from harness.timing import estimate
from harness.workloads import OPERATIONS, Layout, select
from peers.ours import OursFromC

LINE = 64
WORKLOADS = ("8x1024x14x14", "8x2048x7x7", "8x512x28x28", "64x2048x1x1")
CALLS = 5
ROUNDS = 9


def case(system: OursFromC, problem: Problem, layout: Layout) -> list[OffsetRow]:
    """Every offset in each round, in random order."""
    room = problem.y.nbytes + PAGE
    y, dx = (np.zeros(room + PAGE, np.uint8) for _ in range(2))
    found = []
    for operation in OPERATIONS:
        trials = {}
        for offset in range(0, PAGE, LINE):
            for name, memory in (("y", y), ("dx", dx)):
                start = -memory.ctypes.data % PAGE + offset
                setattr(problem, name, memory[start : start + problem.nbytes].view(problem.dtype))
            trials[offset] = system.prepare(problem, operation)
        calls = max(CALLS, int(1e-4 / estimate(trials[0])))
        times = defaultdict(list)
        for _ in range(ROUNDS):
            for offset in random.sample(list(trials), len(trials)):
                trials[offset].run(1)
                times[offset].append(trials[offset].run(calls) / calls)
        found += [
            OffsetRow(problem.workload.name, layout, operation, offset, 1e6 * float(np.median(seconds)))
            for offset, seconds in sorted(times.items())
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS))
    parser.add_argument("--output", type=Path, required=True, help="a file that the rows replace")
    options = parser.parse_args()
    system = OursFromC(1)
    found: list[OffsetRow] = []
    for workload in tqdm(select(options.workloads), file=sys.stderr):
        for layout in workload.layouts:
            found += case(system, Problem(workload, layout, places=(0, 0, 0, 0)), layout)
    rows.write(options.output, found)


if __name__ == "__main__":
    main()
