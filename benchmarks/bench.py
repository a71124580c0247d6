# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark: starts a process for each instruction set and number of threads, then writes the report.

Every process has as many CPUs as threads. The first instruction set is measured with all systems, the others with the
floors only: a peer does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from harness import machine, rows
from harness.native import BUILD
from harness.rows import BesideRow, Row, VariantRow
from harness.workloads import QUICK
from peers import NAMES
from reporting import report

HERE = Path(__file__).resolve().parent
PARTS = ("main", "beside", "calls", "errors", "sweep", "scaling", "variants")
FLOORS_ONLY_SHARE = 0.2  # of the time that a process with all systems gets
VARIANTS_SECONDS = 90  # of all processes together
BESIDE_SECONDS = 0.3  # of a case, beside the cold calls


def arguments() -> argparse.Namespace:
    cpus = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four workloads, few rounds: does it work?")
    parser.add_argument("--threads", type=int, nargs="+", default=[n for n in (1, 2) if n <= cpus])
    parser.add_argument("--isa", nargs="+", choices=machine.ISAS, help="default: all that the machine has")
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--workloads", nargs="+", help="names such as 8x64x56x56, or families such as resnet-50")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, help="for the main part (default: 8, with --quick 0.2)")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/DATE-CPU")
    options = parser.parse_args()
    if max(options.threads) > cpus:
        parser.error(f"there are {cpus} CPUs for {max(options.threads)} threads")
    if options.quick:
        options.workloads = options.workloads or list(QUICK)
    options.minutes = options.minutes or (0.2 if options.quick else 8)
    # A quick run is no result, so it goes where builds go.
    default = BUILD / "quick" if options.quick else HERE / "results" / f"{date.today()}-{machine.slug()}"
    options.output = (options.output or default).resolve()
    return options


def start(script: str, threads: int, isa: str, *options: object) -> None:
    with machine.granted(threads):
        command = [sys.executable, str(HERE / script), *map(str, options)]
        subprocess.run(command, env=machine.environment(threads, isa), check=True)


def note_machine(options: argparse.Namespace, isas: list[str]) -> None:
    """machine.json, of which other parts may have left one with what they measured."""
    path = options.output / "machine.json"
    known = json.loads(path.read_text()) if path.exists() else {"versions": {}, "absent": {}}
    path.write_text(json.dumps(known | machine.describe() | {"isas": isas}, indent=2) + "\n")


def note_versions(options: argparse.Namespace, part: Path) -> None:
    """Writes the versions of what a part has measured into machine.json."""
    path, found = options.output / "machine.json", json.loads(part.with_suffix(".json").read_text())
    known = json.loads(path.read_text())
    for key, values in found.items():
        known[key] |= values
    path.write_text(json.dumps(known, indent=2) + "\n")


def measure_all(options: argparse.Namespace, isas: list[str]) -> None:
    """results.csv."""
    floors_only = [name for name in ("ours", "floors") if name in options.systems]
    shares = [1 if isa == isas[0] else FLOORS_ONLY_SHARE for isa in isas]
    measured: list[Row] = []
    for isa, share in zip(isas, shares):
        systems = options.systems if isa == isas[0] else floors_only
        for threads in options.threads:
            seconds = 60 * options.minutes * share / sum(shares) / len(options.threads)
            print(f"{isa}, {threads} threads: about {seconds:.0f} s", file=sys.stderr)
            part = BUILD / "part.csv"
            choice = ["--workloads", *options.workloads] if options.workloads else []
            common = ["--threads", threads, "--seconds", seconds, "--output", part]
            start("measure.py", threads, isa, *common, "--systems", *systems, *choice)
            measured += rows.read(part, Row)
            if isa == isas[0]:
                note_versions(options, part)
    rows.write(options.output / "results.csv", measured)


def measure_variants(options: argparse.Namespace, isa: str) -> None:
    """variants.csv."""
    measured: list[VariantRow] = []
    part = BUILD / "variants.csv"
    seconds = 0 if options.quick else VARIANTS_SECONDS / len(options.threads)
    choice = ["--workloads", *options.workloads] if options.workloads else []
    for threads in options.threads:
        common = ["--threads", threads, "--seconds", seconds, "--output", part]
        start("variants.py", threads, isa, *common, "--systems", *options.systems, *choice)
        measured += rows.read(part, VariantRow)
    rows.write(options.output / "variants.csv", measured)


def measure_beside(options: argparse.Namespace, isa: str) -> None:
    """beside.csv."""
    measured: list[BesideRow] = []
    part = BUILD / "beside.csv"
    known = [name for name in options.systems if name in ("onednn", "torch kernels")]
    choice = ["--workloads", *options.workloads] if options.workloads else []
    for threads in options.threads:
        seconds = 0.05 if options.quick else BESIDE_SECONDS
        common = ["--threads", threads, "--seconds", seconds, "--output", part]
        start("beside.py", threads, isa, *common, "--systems", *known, *choice)
        measured += rows.read(part, BesideRow)
    note_versions(options, part)
    rows.write(options.output / "beside.csv", measured)


def note_load(options: argparse.Namespace, load: machine.Load) -> None:
    """Writes into machine.json how busy the machine was."""
    path, busy = options.output / "machine.json", load.described()
    if busy:
        print(f"warning: {busy}; figures of a busy machine say little", file=sys.stderr)
    about = json.loads(path.read_text()) | {"busy": busy or "no sign of a busy machine"}
    path.write_text(json.dumps(about, indent=2) + "\n")


def main() -> None:
    options = arguments()
    load = machine.Load()
    options.output.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(exist_ok=True)
    isas = options.isa or machine.isas()
    note_machine(options, isas)
    target = ["--output", options.output]
    small = ["--most-elements", 2**16] if options.quick else []
    if "main" in options.parts:
        measure_all(options, isas)
    if "beside" in options.parts and {"onednn", "torch kernels"} & set(options.systems):
        measure_beside(options, isas[0])
    if "calls" in options.parts and "torch" in options.systems:
        start("calls.py", 1, isas[0], *target)
    if "errors" in options.parts:
        start("errors.py", 1, isas[0], *target)
    if "sweep" in options.parts:
        start("sweep.py", max(options.threads), isas[0], *target, *small, "--threads", *options.threads)
    if "scaling" in options.parts:
        counts = sorted({1, *options.threads, 32})
        start("scaling.py", max(options.threads), isas[0], *target, *small, "--threads", *counts)
    if "variants" in options.parts:
        measure_variants(options, isas[0])
    note_load(options, load)
    report.write(options.output)
    print(options.output / "results.md")


if __name__ == "__main__":
    main()
