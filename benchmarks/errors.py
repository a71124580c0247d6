# SPDX-License-Identifier: Apache-2.0
"""The distance of y from the real numbers when the mean is large: the other half of a speed comparison.

The unit is eps * max(1, |y|) of float32, the oracle is the formula in the widest floating-point type that NumPy has,
on the float32 values that the systems get.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import rows
from harness.problem import EPS, Problem
from harness.rows import ErrorRow
from harness.workloads import Workload
from peers import NAMES, available

WORKLOAD = Workload("errors", 8, 16, (64, 64), composed=True)
MEANS = (0.0, 1e2, 1e4, 1e6)


def oracle(problem: Problem) -> NDArray[np.longdouble]:
    x, gamma, beta = (
        a.astype(np.longdouble) for a in (problem.x.reshape(problem.core_shape), problem.gamma, problem.beta)
    )
    mean = x.mean((0, 2), keepdims=True)
    var = np.square(x - mean).mean((0, 2), keepdims=True)
    y = (x - mean) / np.sqrt(var + np.longdouble(EPS)) * gamma[:, None] + beta[:, None]
    flat: NDArray[np.longdouble] = y.reshape(-1)
    return flat


def errors(mean: float) -> list[ErrorRow]:
    problem = Problem(WORKLOAD, "NCHW", mean=mean)
    expected = oracle(problem)
    unit = np.finfo(np.float32).eps * np.maximum(1, np.abs(expected))
    found = []
    for system in available(NAMES, threads=1)[0]:
        trial = system.prepare(problem, "training")
        if trial is not None and trial.result is not None:
            problem.y[:] = np.nan
            trial.run(1)
            found.append(ErrorRow(system.name, mean, float(np.max(np.abs(trial.result() - expected) / unit))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for errors.csv")
    options = parser.parse_args()
    rows.write(options.output / "errors.csv", [row for mean in MEANS for row in errors(mean)])


if __name__ == "__main__":
    main()
