# SPDX-License-Identifier: Apache-2.0
"""`batchnorm experiments`."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import time
from pathlib import Path

from ..experiments import NAMES
from .numbers import count
from .problems import UserError, needing

# The packages that experiments need beside NumPy, by the name they are imported under.
PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"there is no experiment {text!r}, only {', '.join(NAMES)}")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", type=name, nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all unless given")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("batchnorm-experiments"),
        metavar="DIR",
        help="where NAME.png and NAME.json go (%(default)s)",
    )
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs of each kind (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer settings and epochs")
    parser.add_argument("--json", action="store_true", help="print what the files NAME.json hold, as one list")


def folder(path: Path) -> Path:
    """The folder, made if need be, where files can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"no folder can be made at {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"no file can be written in {path}")
    return path


def paragraph(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="  ")


def run(arguments: argparse.Namespace) -> int:
    with needing("this", PACKAGES):
        from ..experiments.result import Settings, perform

    output = folder(arguments.output)
    documents, failed = [], []
    for each in dict.fromkeys(arguments.names or NAMES):
        start = time.perf_counter()
        result = perform(each, Settings(tuple(range(arguments.seeds)), arguments.quick))
        seconds = time.perf_counter() - start
        picture, _ = result.save(output)
        documents.append(result.as_json())
        failed += [f"{each}: {check}" for check in result.claim.checks if not check.holds]
        if not arguments.json:
            print(f"{each}, {seconds:.1f} s: {picture}\n{result.lesson}.\n")
            print(
                f"{paragraph(result.claim.sentence)}\n{paragraph('When it is not so: ' + result.when_not)}\n",
                flush=True,
            )
    if arguments.json:
        print(json.dumps(documents, indent=1, allow_nan=False))
    if failed:
        raise UserError(f"a claim does not hold in this run: {'; '.join(failed)}")
    return 0
