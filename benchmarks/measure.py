# SPDX-License-Identifier: Apache-2.0
"""Measures every system on every case, in this one process, with one number of threads and one instruction set.

bench.py starts it, because those two are settled when a process begins.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import batchnorm as bn
import numpy as np
from tqdm import tqdm

from harness import rows
from harness.problem import Problem
from harness.rows import Row
from harness.system import System, Trial
from harness.timing import Sample, measure
from harness.workloads import OPERATIONS, Operation, Workload, select
from peers import NAMES, OURS, OURS_FROM_C, available, floor_of

COMPARED = 4096  # elements at the start of a result, which have to be those of this library
TENSORS = {"training": 2, "inference": 2, "backward": 3}  # that have to be moved at least once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--workloads", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    systems, absent = available(tuple(options.systems), options.threads)
    found = {system.name: system.version for system in systems if system.caller == "python"} | {
        system.name: system.version for system in systems if system.name == "onednn"
    }
    options.output.with_suffix(".json").write_text(json.dumps({"versions": found, "absent": absent}))
    measured = run(select(options.workloads), systems, options.threads, options.seconds)
    rows.write(options.output, measured)


def problems(workloads: list[Workload]) -> Iterator[Problem]:
    """One after the other: together they would not fit into memory."""
    for workload in workloads:
        for dtype in (np.float32, np.float64)[: 1 + workload.double]:
            for layout in workload.layouts:
                yield Problem(workload, layout, np.dtype(dtype))


def weight(workload: Workload) -> float:
    """The share of the time that the cases of a workload get: they take their time with large tensors."""
    cases = len(workload.layouts) * len(OPERATIONS) * (1 + workload.double)
    return cases * (1 + workload.elements / 2**20)


def run(workloads: list[Workload], systems: list[System], threads: int, seconds: float) -> list[Row]:
    """All rows. A case that takes more or less than its share leaves less or more to the cases after it."""
    deadline = time.monotonic() + seconds
    left = sum(map(weight, workloads))
    measured: list[Row] = []
    with tqdm(total=left, bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", file=sys.stderr) as progress:
        for problem in problems(workloads):
            for operation in OPERATIONS:
                progress.set_postfix_str(f"{problem.workload.name} {problem.layout} {problem.dtype} {operation}")
                share = 1 + problem.workload.elements / 2**20
                time_left = max(0.0, deadline - time.monotonic())
                measured += case(problem, operation, systems, threads, time_left * share / left)
                left -= share
                progress.update(share)
    return measured


def case(problem: Problem, operation: Operation, systems: list[System], threads: int, seconds: float) -> list[Row]:
    """One operation on one problem, by every system that has it."""
    trials = {}
    for system in systems:
        if problem.workload.composed or not system.composed:
            trial = system.prepare(problem, operation)
            if trial is not None:
                trials[system.name] = trial
    compare(trials, problem, operation)
    samples = measure(trials, seconds, threads)
    callers = {system.name: system.caller for system in systems}
    return [row(problem, operation, name, callers[name], samples, threads) for name in samples]


def compare(trials: dict[str, Trial], problem: Problem, operation: Operation) -> None:
    """A system that computes something else is not measured, but reported."""
    expected = None
    for name, trial in list(trials.items()):
        if trial.result is not None:
            trial.run(1)
            result = trial.result()[:COMPARED].copy()
            expected = result if expected is None else expected
            difference = float(np.abs(result - expected).max())
            if not difference < 1e-3:
                where = f"{problem.workload.name} {problem.layout} {problem.dtype} {operation}"
                tqdm.write(f"{name} differs by {difference:.2g} on {where}: left out", file=sys.stderr)
                del trials[name]


def row(
    problem: Problem, operation: Operation, name: str, caller: str, samples: dict[str, Sample], threads: int
) -> Row:
    seconds = samples[name].median
    ours = samples.get(OURS if caller == "python" else OURS_FROM_C)
    floor = samples.get(floor_of(operation))
    return Row(
        isa=bn.isa(),
        threads=threads,
        family=problem.workload.family,
        workload=problem.workload.name,
        layout=problem.layout,
        dtype=str(problem.dtype),
        operation=operation,
        system=name,
        median_us=seconds * 1e6,
        mad_us=samples[name].mad * 1e6,
        rounds=samples[name].rounds,
        ratio_to_ours=seconds / ours.median if ours else float("nan"),
        ratio_to_floor=seconds / floor.median if floor else float("nan"),
        gb_per_s=TENSORS[operation] * problem.nbytes / seconds / 1e9,
        mbytes=problem.nbytes / 1e6,
    )


if __name__ == "__main__":
    main()
