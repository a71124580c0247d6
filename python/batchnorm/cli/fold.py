# SPDX-License-Identifier: Apache-2.0
"""`batchnorm fold`: an ONNX file without its batch norms."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .numbers import count
from .problems import UserError, needing
from .shapes import shape

if TYPE_CHECKING:
    from ..onnx_files import Report, Verification

OVERRIDABLE = "is an input of the graph as well"
PACKAGES = {"onnx": "onnx", "onnxruntime": "onnxruntime"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="IN.onnx", help="the model")
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="another file, which is replaced if it exists")
    parser.add_argument(
        "--verify", type=count, nargs="?", const=3, default=0, metavar="N",
        help="compare both models on N random inputs (3) first; needs onnxruntime",
    )  # fmt: skip
    parser.add_argument(
        "--shape", type=shape, action="append", default=[], metavar="NAME=1,3,224,224",
        help="of an input whose shape the model leaves open; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="append", default=[], metavar="NAME",
        help="leave this batch norm, named by its node or its output; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--overridable", action="store_true",
        help="change weights, too, that are inputs of the graph as well, which a caller might override",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    with needing("this", PACKAGES):
        from .. import onnx_files

        try:
            report, found = onnx_files.fold_file(
                arguments.file,
                None if arguments.dry_run else arguments.output,
                keep=arguments.keep,
                overridable=arguments.overridable,
                inputs=arguments.verify,
                shapes=dict(arguments.shape),
            )
        except ValueError as error:
            raise UserError(str(error)) from None
    written = None if arguments.dry_run else str(arguments.output)
    if arguments.json:
        told = {**asdict(report), "left": [{"name": name, "reason": reason} for name, reason in report.left]}
        verified = {**asdict(found), "worst": found.worst} if found else None
        print(json.dumps({"file": str(arguments.file), "output": written, **told, "verified": verified}, indent=2))
        return 0
    _tell(arguments.file, report, found)
    print(f"written to {written}" if written else "nothing is written (--dry-run)")
    return 0


def _tell(file: Path, report: Report, found: Verification | None) -> None:
    total = len(report.folded) + len(report.left)
    print(f"{file}: {len(report.folded)} of {total} batch norms folded" if total else f"{file} has no batch norm")
    for how, number in Counter(_kind(fold.how) for fold in report.folded).most_common():
        print(f"  {number} {how}")
    if report.merged:
        names = ", ".join(fold.name for fold in report.merged[:4]) + ", ..." * (len(report.merged) > 4)
        print(f"{len(report.merged)} other nodes taken up by a batch norm: {names}")
    if report.left:
        print(f"{len(report.left)} left:")
    for name, reason in report.left:
        print(f"  {name}: {reason}")
    stuck = sum(OVERRIDABLE in reason for _, reason in report.left)
    if stuck:
        print(f"--overridable changes those inputs of {stuck} of them, which is right if no caller gives them values")
    if found:
        _tell_verified(report, found)


def _tell_verified(report: Report, found: Verification) -> None:
    print(
        f"{len(found.errors)} tensors compared on {found.inputs} random inputs: "
        f"they differ by at most {found.worst:.1e} of their largest value"
    )
    if found.vacuous:
        shown = len(found.errors) - len(found.vacuous)
        print(f"{len(found.vacuous)} of these comparisons show nothing, {shown} do:")
    for name, why in found.vacuous.items():
        print(f"  {name} {why}")
    if report.within:
        print(f"{report.within} were folded in subgraphs, whose tensors cannot be compared, only what comes of them")


def _kind(how: str) -> str:
    """The kind of a fold, without names: into Conv before it."""
    return re.sub(" '[^']*'", "", how)
