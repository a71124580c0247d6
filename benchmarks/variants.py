# SPDX-License-Identifier: Apache-2.0
"""The cost of fused operations, masks and elements of 16 bits beside the plain call on float32.

All variants of an operation on one shape take turns in this one process, whatever their elements are. bench.py starts a
process for each number of threads.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

import batchnorm as bn
import numpy as np
from tqdm import tqdm

from harness import rows
from harness.rows import VariantRow
from harness.system import Trial
from harness.timing import FEWEST_ROUNDS, Sample, measure
from harness.variants import ELEMENTS, SHAPES, VARIANTS, Element, Operands, Variant, VariantSystem
from harness.workloads import OPERATIONS, Layout, Operation, Workload
from peers import COPY, OURS
from peers.floors import Copy

# Each has a name on the command line, a module and a class, as in peers/__init__.py.
KNOWN = (("ours", "ours_variants", "OursVariants"), ("torch", "pytorch_variants", "PyTorchVariants"))
COMPARED = 4096  # elements at the start of y, which have to be those of this library
# The errors that are allowed, in units of max(1, |y|). Calls that are not fused round to 8 bits after each step.
TOLERANCE: dict[Element, float] = {"float32": 1e-3, "bfloat16": 2**-5, "float16": 2**-8}


class Key(NamedTuple):
    """A call that takes turns with others. The floor is called plain."""

    element: Element
    system: str
    variant: Variant


def available(names: list[str], threads: int) -> list[VariantSystem]:
    systems: list[VariantSystem] = []
    for name, module, kind in KNOWN:
        if name in names:
            try:
                systems.append(getattr(importlib.import_module(f"peers.{module}"), kind)(threads))
            except (ImportError, OSError) as error:
                print(f"{name} is absent: {str(error).splitlines()[0]}", file=sys.stderr)
    return systems


def select(names: list[str] | None) -> list[tuple[Workload, Layout]]:
    """The shapes with these names or of these families; those that only other parts have are none."""
    return [(w, layout) for w, layout in SHAPES if not names or w.name in names or w.family in names]


def run(
    shapes: list[tuple[Workload, Layout]], systems: list[VariantSystem], floor: Copy | None, seconds: float
) -> list[VariantRow]:
    """All rows. A shape that takes more or less than its share leaves less or more to the shapes after it."""
    deadline = time.monotonic() + seconds
    shares = [1 + workload.elements / 2**20 for workload, _ in shapes]
    fewest = FEWEST_ROUNDS if seconds else 1
    measured: list[VariantRow] = []
    for number, (workload, layout) in enumerate(tqdm(shapes, desc="variants")):
        operands = [Operands(workload, layout, element) for element in ELEMENTS]
        time_left = max(0.0, deadline - time.monotonic())
        of_shape = time_left * shares[number] / sum(shares[number:])
        for operation in OPERATIONS:
            measured += case(operands, operation, systems, floor, of_shape / len(OPERATIONS), fewest)
    return measured


def case(
    operands: list[Operands],
    operation: Operation,
    systems: list[VariantSystem],
    floor: Copy | None,
    seconds: float,
    fewest: int,
) -> list[VariantRow]:
    """One operation on one shape: every element, system and variant."""
    deadline = time.monotonic() + seconds
    trials: dict[Key, Trial] = {}
    for o in operands:
        of_element: dict[Key, Trial] = {}
        for system in systems:
            for variant in VARIANTS:
                trial = system.variant(o, operation, variant)
                if trial is not None:
                    of_element[Key(o.element, system.name, variant)] = trial
        compare(of_element, o, operation)
        trials |= of_element
        copy = floor.prepare(o, operation) if floor else None
        if copy is not None:
            trials[Key(o.element, COPY, "plain")] = copy
    names = {" / ".join(key): key for key in trials}
    left = max(0.0, deadline - time.monotonic())
    samples = measure({name: trials[key] for name, key in names.items()}, left, bn.get_num_threads(), fewest)
    by_key = {key: samples[name] for name, key in names.items()}
    about = {o.element: o for o in operands}
    return [row(about[key.element], operation, key, by_key) for key in by_key]


def compare(trials: dict[Key, Trial], o: Operands, operation: Operation) -> None:
    """A peer that computes something else is not measured, but reported."""
    for key, trial in list(trials.items()):
        ours = trials.get(key._replace(system=OURS))
        if key.system == OURS or ours is None or ours.result is None or trial.result is None:
            continue
        ours.run(1)
        expected = o.values(ours.result()[:COMPARED])
        trial.run(1)
        result = o.values(trial.result()[:COMPARED])
        difference = float((np.abs(result - expected) / np.maximum(1, np.abs(expected))).max())
        if not difference < TOLERANCE[o.element]:
            where = f"{o.workload.name} {o.layout} {o.element} {operation}, {key.variant}"
            tqdm.write(f"{key.system} differs by {difference:.2g} on {where}: left out", file=sys.stderr)
            del trials[key]


def row(o: Operands, operation: Operation, key: Key, samples: dict[Key, Sample]) -> VariantRow:
    sample = samples[key]

    def over(other: Key) -> float:
        return sample.median / samples[other].median if other in samples else float("nan")

    return VariantRow(
        isa=bn.isa(),
        threads=bn.get_num_threads(),
        family=o.workload.family,
        workload=o.workload.name,
        layout=o.layout,
        dtype=key.element,
        operation=operation,
        variant=key.variant,
        system=key.system,
        median_us=sample.median * 1e6,
        mad_us=sample.mad * 1e6,
        rounds=sample.rounds,
        ratio_to_plain=over(key._replace(variant="plain")),
        ratio_to_float32=over(key._replace(element="float32")),
        ratio_to_ours=over(key._replace(system=OURS)),
        ratio_to_copy=over(Key(key.element, COPY, "plain")),
        mbytes=o.nbytes / 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=40, help="at least three rounds, but one with 0")
    parser.add_argument("--systems", nargs="+", default=["ours", "floors", "torch"], help="others are none here")
    parser.add_argument("--workloads", nargs="+", help="names or families; those of other parts are none here")
    parser.add_argument("--output", type=Path, required=True, help="a CSV file")
    options = parser.parse_args()

    systems = available(options.systems, options.threads)
    bn.set_num_threads(options.threads)
    floor = Copy(options.threads) if "floors" in options.systems else None
    rows.write(options.output, run(select(options.workloads), systems, floor, options.seconds))


if __name__ == "__main__":
    main()
