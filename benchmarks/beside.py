# SPDX-License-Identifier: Apache-2.0
"""The library beside its peers as C programs see them: all called from C, on the same buffers, in random order.

Tensors lie at several places in their pages, as the same call may take longer at some. Each case is timed three times:
warm (after calls like it), cold (after a pass over memory larger than every cache), and with a reader that comes after
the call, as a result that was stored past the caches is paid for by the next who reads it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from harness import machine, rows
from harness.native import compiled
from harness.problem import Problem
from harness.rows import BesideRow
from harness.system import System, Trial
from harness.timing import SETTLE, WAKE_UP, WARM_UP, estimate
from harness.workloads import LAYOUTS, OPERATIONS, Layout, Operation, Workload, select
from measure import compare
from peers import COPY, FLOORS, OURS_FROM_C, THREE_TENSORS, TWO_READS, available
from peers.ours import OursFromC

SYSTEMS = ("ours", "floors", "onednn", "torch kernels")
# Bytes from the start of a page to x, dy, y and dx: all alike; where NumPy's arrays begin; far from one another; a line
# apart.
PLACES = ((0, 0, 0, 0), (16, 16, 16, 16), (0, 1024, 2048, 3072), (192, 128, 64, 0))
SAMPLE = 0.3e-3  # seconds: short, because there are many
COLD_ROUNDS = 3  # at each place
EVICTED = 4  # times the last cache,
MOST_EVICTED = 1 << 29  # but no more bytes than replace what a guest has of its host's

Seconds = dict[str, list[float]]  # of calls, by system


class Memory:
    """Passes over memory that belong to no system."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pass_ = compiled("native/floors.c").repeat_pass
        self.pass_.restype = ctypes.c_double
        self.pass_.argtypes = [ctypes.c_int, ctypes.c_long, *[ctypes.c_void_p] * 3, ctypes.c_size_t, ctypes.c_int]
        self.much = np.ones(min(MOST_EVICTED, EVICTED * max(machine.cache_bytes().values())), np.uint8)

    def evict(self) -> None:
        self.pass_(4, 1, None, self.much.ctypes.data, None, self.much.nbytes, self.threads)

    def read(self, tensor: np.ndarray) -> float:
        """Seconds that the next reader of a result takes."""
        seconds: float = self.pass_(4, 1, None, tensor.ctypes.data, None, tensor.nbytes, self.threads)
        return seconds


def shuffled(trials: dict[str, Trial]) -> list[tuple[str, Trial]]:
    order = list(trials.items())
    random.shuffle(order)
    return order


def warm(trials: dict[str, Trial], seconds: float, threads: int, between: Callable[[], float] | None) -> Seconds:
    """Samples of several calls each; with a reader, of one call and what it leaves to the reader."""
    found: Seconds = defaultdict(list)
    expected = {name: estimate(trial) for name, trial in trials.items()}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or min(map(len, found.values()), default=0) < 3:
        for name, trial in shuffled(trials):
            if threads > 1:
                time.sleep(SETTLE)
            trial.run(max(1, int((WARM_UP / 5 if threads == 1 else WAKE_UP) / expected[name])))
            if between is None:
                calls = max(1, int(SAMPLE / expected[name]))
                found[name].append(trial.run(calls) / calls)
            else:
                found[name].append(trial.run(1) + between())
    return found


def cold(trials: dict[str, Trial], memory: Memory) -> Seconds:
    found: Seconds = defaultdict(list)
    for _ in range(COLD_ROUNDS):
        for name, trial in shuffled(trials):
            memory.evict()
            if memory.threads > 1:
                time.sleep(SETTLE)
            found[name].append(trial.run(1))
    return found


def cases(
    workload: Workload,
    layout: Layout,
    operations: list[Operation],
    systems: list[System],
    memory: Memory,
    options: argparse.Namespace,
) -> Iterator[BesideRow]:
    """All rows of one tensor."""
    times: dict[tuple[Operation, str], Seconds] = defaultdict(lambda: defaultdict(list))
    for places in PLACES:
        problem = Problem(workload, layout, places=places)
        for operation in operations:
            trials = {s.name: trial for s in systems if (trial := s.prepare(problem, operation)) is not None}
            compare(trials, problem, operation)
            result = problem.dx if operation == "backward" else problem.y
            # The floors write elsewhere.
            read = {name: trial for name, trial in trials.items() if name not in (COPY, THREE_TENSORS)}
            share = options.seconds / len(PLACES) / 2
            measured = {
                "warm": warm(trials, share, options.threads, None),
                "reader": warm(read, share, options.threads, partial(memory.read, result)),
                "cold": cold(trials, memory),
            }
            for state, found in measured.items():
                for name, seconds in found.items():
                    times[operation, state][name] += seconds
    for (operation, state), found in times.items():
        ours = float(np.median(found[OURS_FROM_C]))
        for name, seconds in found.items():
            middle, low = np.percentile(seconds, [50, 10])
            yield BesideRow(
                threads=options.threads,
                workload=workload.name,
                layout=layout,
                operation=operation,
                state=state,
                system=name,
                median_us=1e6 * float(middle),
                p10_us=1e6 * float(low),
                rounds=len(seconds),
                ratio_to_ours=float(middle) / ours,
                mbytes=problem.nbytes / 1e6,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.6, help="for a case, beside the cold calls")
    parser.add_argument("--workloads", nargs="+")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--library", nargs="+", default=[], metavar="NAME=PATH", help="other builds of this library")
    parser.add_argument("--output", type=Path, required=True, help="a file that the rows replace")
    options = parser.parse_args()

    systems, absent = available(("ours", *options.systems), options.threads)
    systems = [system for system in systems if system.caller == "c" and system.name != TWO_READS]
    for name, reason in absent.items():
        print(f"{name} is absent: {reason}", file=sys.stderr)
    for name, _, path in (text.partition("=") for text in options.library):
        systems.append(OursFromC(options.threads, ctypes.CDLL(path), name))
    about = {"versions": {s.name: s.version for s in systems if s.name not in FLOORS}, "absent": absent}
    options.output.with_suffix(".json").write_text(json.dumps(about))
    memory = Memory(options.threads)
    found: list[BesideRow] = []
    shapes = [(w, layout) for w in select(options.workloads) for layout in w.layouts if layout in options.layouts]
    for workload, layout in tqdm(shapes, file=sys.stderr):
        found += cases(workload, layout, options.operations, systems, memory, options)
        rows.write(options.output, found)


if __name__ == "__main__":
    main()
