# SPDX-License-Identifier: Apache-2.0
"""`batchnorm info`: what is loaded, what it runs on, and whether it computes right."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="compare results with formulas in float64 (about a second)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    from .. import machine

    facts = machine.facts()
    results = list(machine.self_test()) if arguments.check else []
    wrong = [each for each in results if not each.is_right]
    if arguments.json:
        if arguments.check:
            facts["check"] = {"results": len(results), "wrong": [each._asdict() for each in wrong]}
        print(json.dumps(facts, indent=2))
        return 1 if wrong else 0
    kilobytes = facts["library_bytes"] / 1000
    lines = {
        "version": f"{facts['version']}, library {facts['library_version']}, ABI {facts['abi']}",
        "isa": f"{facts['isa']}, of {', '.join(facts['isa_available'])}",
        "threads": f"{facts['threads']}, from {facts['threads_from']}",
        "library": f"{facts['library']}, {kilobytes:.0f} KB",
    }
    for name, fact in lines.items():
        print(f"{name:8} {fact}")
    if arguments.check:
        told = f"{len(results)} results are those of the formulas, as far as rounding goes"
        print(f"{'check':8} {f'{len(wrong)} of {len(results)} results are wrong' if wrong else told}")
    for each in wrong:
        what = f"{each.call} {each.dtype} {each.shape}, axis {each.axis}: {each.result}"
        print(f"  {what} is off by {each.difference:.2g}, expected at most {each.allowed:.2g}")
    return 1 if wrong else 0
