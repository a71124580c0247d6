# SPDX-License-Identifier: Apache-2.0
"""The cost of an element while one extent grows from 1: a smooth curve, if no shape is treated worse than others.

Between powers of two, and one element beside them, because that is where vectors, cache lines and blocks end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import batchnorm as bn
from tqdm import tqdm

from harness import rows
from harness.problem import Problem
from harness.rows import SweepRow
from harness.system import System, Trial
from harness.timing import measure
from harness.workloads import OPERATIONS, Workload
from peers import COPY, THREE_TENSORS
from peers.floors import Copy, ThreeTensors
from peers.ours import OursFromC

ONE_BY_ONE = 16  # up to here every number is measured
# The other extents, while N, C or H*W grows.
FIXED = {"N": {"c": 64, "hw": 196}, "C": {"n": 8, "hw": 49}, "H*W": {"n": 8, "c": 32}}
SECONDS = 0.02  # per case, at least three rounds


def values(largest: int) -> Iterator[int]:
    """1, 2, 3, ... 16, then 31, 32, 33, 48, 63, 64, 65, 96, ..."""
    yield from range(1, min(ONE_BY_ONE, largest) + 1)
    power = 2 * ONE_BY_ONE
    while power <= largest:
        yield from (v for v in (power - 1, power, power + 1, power * 3 // 2) if v <= largest)
        power *= 2


def workloads(axis: str, most_elements: int) -> Iterator[tuple[int, Workload]]:
    fixed = FIXED[axis]
    rest = fixed.get("n", 1) * fixed.get("c", 1) * fixed.get("hw", 1)
    for value in values(most_elements // rest):
        extents = {"n": value, "c": value, "hw": value} | fixed
        if extents["n"] * extents["hw"] > 1:  # one value per channel has no variance
            yield value, Workload("sweep", extents["n"], extents["c"], (extents["hw"],))


def point(axis: str, value: int, problem: Problem, threads: int, systems: list[System]) -> Iterator[SweepRow]:
    for operation in OPERATIONS:
        trials: dict[str, Trial] = {}
        for system in systems:
            trial = system.prepare(problem, operation)
            if trial is not None and (system.name != COPY or operation != "backward"):
                trials["copy" if system.name in (COPY, THREE_TENSORS) else "batchnorm"] = trial
        for name, sample in measure(trials, SECONDS, threads).items():
            elements = problem.workload.elements
            cost = sample.median * 1e9 / elements
            yield SweepRow(threads, axis, value, elements, problem.layout, operation, name, cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--most-elements", type=int, default=2**22)
    parser.add_argument("--output", type=Path, required=True, help="directory for sweep.csv")
    options = parser.parse_args()

    measured: list[SweepRow] = []
    for threads in options.threads:
        systems: list[System] = [OursFromC(threads), Copy(threads), ThreeTensors(threads)]
        for axis in FIXED:
            points = list(workloads(axis, options.most_elements))
            for value, workload in tqdm(points, desc=f"{axis}, {threads} threads"):
                for layout in workload.layouts:
                    measured += point(axis, value, Problem(workload, layout), threads, systems)
    bn.set_num_threads(0)
    rows.write(options.output / "sweep.csv", measured)


if __name__ == "__main__":
    main()
