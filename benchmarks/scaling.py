# SPDX-License-Identifier: Apache-2.0
"""The gain from threads: the same tensors with 1 thread, with 2, and with many more than there are CPUs, in turns."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import batchnorm as bn
from tqdm import tqdm

from harness import rows
from harness.problem import Problem
from harness.rows import ScalingRow
from harness.system import Trial
from harness.timing import measure
from harness.workloads import OPERATIONS, Operation, Workload
from peers.floors import Copy, ThreeTensors
from peers.ours import OursFromC

PLANE = 8 * 64  # samples times channels of every tensor
SECONDS = 0.25  # per case


def with_threads(trial: Trial, threads: int) -> Trial:
    """The same calls, with that number set before the clock starts."""

    def run(times: int) -> float:
        bn.set_num_threads(threads)
        return trial.run(times)

    return Trial(run)


def case(problem: Problem, operation: Operation, counts: list[int]) -> Iterator[ScalingRow]:
    floor = ThreeTensors if operation == "backward" else Copy
    ours = OursFromC(1).prepare(problem, operation)
    trials = {("batchnorm", count): with_threads(ours, count) for count in counts}
    for count in counts:
        passed = floor(count).prepare(problem, operation) if count <= len(os.sched_getaffinity(0)) else None
        if passed is not None:
            trials[floor.name, count] = passed
    samples = measure({f"{name} {count}": trial for (name, count), trial in trials.items()}, SECONDS, max(counts))
    for name, count in trials:
        one, now = samples[f"{name} {counts[0]}"].median, samples[f"{name} {count}"].median
        yield ScalingRow(problem.workload.elements, problem.layout, operation, name, count, now * 1e6, one / now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 32], help="the first is what others relate to")
    parser.add_argument("--most-elements", type=int, default=2**25)
    parser.add_argument("--output", type=Path, required=True, help="directory for scaling.csv")
    options = parser.parse_args()

    measured: list[ScalingRow] = []
    planes = [4**k for k in range(1, 17) if PLANE * 4**k <= options.most_elements]
    for plane in tqdm(planes, desc="sizes"):
        workload = Workload("scaling", 8, PLANE // 8, (plane,))
        for layout in workload.layouts:
            problem = Problem(workload, layout)
            for operation in OPERATIONS:
                measured += case(problem, operation, options.threads)
    bn.set_num_threads(0)
    rows.write(options.output / "scaling.csv", measured)


if __name__ == "__main__":
    main()
