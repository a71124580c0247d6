# SPDX-License-Identifier: Apache-2.0
"""Mutants of the engine (Sources/BatchNorm) and of its loops (Sources/Kernels), killed by the C tests and the short
form of Tests/Faults.

    engine.py [--engine N] [--loops N] [--seed S] [--longest SECONDS] [--workers N]
    engine.py --sample N [--seed S]

A place is drawn and changed, its module alone is built, and the C tests run, those first that have killed most in the
least time, until one fails. A mutant that the compiler refuses is none. The loops are changed in their baseline build,
and judged by tests that run nothing else: other instruction sets would be an oracle that a release does not have.

The rows of engine.tsv are not tried again; survivors are, so that a new test shows. --longest leaves out tests that
take longer, for a first round. --sample takes rows that a test killed, and sees whether it still does. The last line
counts them: passed are those killed or equivalent.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import table
from swift_places import places
from table import Row
from workshop import ROOT, Tests, Workshop, judge

TABLE = Path(__file__).with_suffix(".tsv")
FOLDERS = {"engine": "Sources/BatchNorm/", "loops": "Sources/Kernels/"}
# Python and XLA alone call the first two. The baseline has no loops over channels: test_isa compares them with it.
OTHERS = {
    ROOT / "Sources/BatchNorm/Python", ROOT / "Sources/BatchNorm/XLA", ROOT / "Sources/Kernels/Channels"
}  # fmt: skip


class Jobs:
    """Mutants to be judged, so many of each kind, for workers that each have a workshop."""

    def __init__(self, workshops: list[Workshop], tests: Tests, rows: list[Row], *, keeps: bool) -> None:
        self.workshops, self.tests, self.rows, self.keeps = workshops, tests, rows, keeps
        self.lock = threading.Lock()

    def run(self, candidates: Iterable[Row], wanted: int) -> None:
        waiting = iter(candidates)
        left = [wanted]
        with ThreadPoolExecutor(len(self.workshops)) as pool:
            for done in [pool.submit(self._work, workshop, waiting, left) for workshop in self.workshops]:
                done.result()

    def _work(self, workshop: Workshop, waiting: Iterator[Row], left: list[int]) -> None:
        while True:
            with self.lock:
                row = next(waiting, None) if left[0] > 0 else None
                if row is None:
                    return
                left[0] -= 1
            is_one = judge(workshop, self.tests, row)
            with self.lock:
                if not is_one:
                    left[0] += 1
                    continue
                if all(row is not each for each in self.rows):
                    self.rows.append(row)
                print(f"{row.file}:{row.line}: {row.before} -> {row.after}: {row.killer}", flush=True)
                if self.keeps:
                    table.write(TABLE, sorted(self.rows, key=lambda each: (each.file, each.line)))


def drawn(folder: str, seed: int, known: list[Row]) -> list[Row]:
    """All other changes of a folder, shuffled: each file comes in proportion to its places."""
    taken = {(row.file, row.before, row.after) for row in known}
    files = sorted(file for file in (ROOT / folder).rglob("*.swift") if OTHERS.isdisjoint(file.parents))
    rows = [row for file in files for row in places(ROOT, file)]
    random.Random(seed).shuffle(rows)
    return [row for row in rows if (row.file, row.before, row.after) not in taken]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=int, default=200)
    parser.add_argument("--loops", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=float("inf"))
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    workshops = [Workshop(str(number)) for number in range(options.workers)]
    workshops[0].build()
    tests = Tests(workshops[0], workshops[0].compile_tests(), options.longest)
    for workshop in workshops[1:]:
        workshop.take_over(workshops[0])

    known = table.read(TABLE)
    if options.sample:
        jobs = Jobs(workshops, tests, [], keeps=False)
        killed = [row for row in known if not row.survived and not row.is_equivalent]
        jobs.run(random.Random(options.seed).sample(killed, min(options.sample, len(killed))), options.sample)
    else:
        jobs = Jobs(workshops, tests, list(known), keeps=True)
        for name, folder in FOLDERS.items():
            have = sum(row.file.startswith(folder) for row in known)
            jobs.run(drawn(folder, options.seed, known), getattr(options, name) - have)
        survivors = [row for row in known if row.survived]
        jobs.run(survivors, len(survivors))

    survived = sum(row.survived for row in jobs.rows)
    equivalent = sum(row.is_equivalent for row in jobs.rows)
    found = {
        "mutants": len(jobs.rows),
        "of them in the loops": sum(row.file.startswith(FOLDERS["loops"]) for row in jobs.rows),
        "killed by a test": len(jobs.rows) - survived - equivalent,
        "compute the same": equivalent,
        "survived": survived,
    }
    print(", ".join(f"{name}: {count}" for name, count in found.items()))
    if not options.sample and options.longest == float("inf"):
        figures = [f"{name}={count}" for name, count in found.items()]
        record = [str(ROOT / "scripts/figures"), "record", "mutants-engine", "command=scripts/mutants engine"]
        subprocess.run([*record, *figures], check=True)
    print(f"{len(jobs.rows) - survived} passed, {survived} failed")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
