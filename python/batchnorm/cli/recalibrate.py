# SPDX-License-Identifier: Apache-2.0
"""`batchnorm recalibrate`: an ONNX file with the statistics of other data."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from .fold import PACKAGES
from .numbers import count
from .problems import UserError, needing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="IN.onnx", help="the model")
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="another file, which is replaced if it exists")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE",
        help="an .npz file with an array for each input, samples along the first axis; or .npy for the only one",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=count, metavar="N", help="samples at a time (32, or as many as the model takes)"
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    with needing("this", PACKAGES):
        from .. import onnx_files

        try:
            result = onnx_files.recalibrate_file(
                arguments.file, arguments.output, arguments.data, batch=arguments.batch
            )
        except ValueError as error:
            raise UserError(str(error)) from None
    if arguments.json:
        left = [{"name": name, "reason": reason} for name, reason in result.left]
        told = {"file": str(arguments.file), "output": str(arguments.output), **asdict(result), "left": left}
        print(json.dumps(told, indent=2))
        return 0
    total = len(result.norms) + len(result.left)
    print(f"{arguments.file}: {len(result.norms)} of {total} batch norms recalibrated" if total else
          f"{arguments.file} has no batch norm")  # fmt: skip
    if result.norms:
        print(f"on {result.samples} samples, in {result.passes} pass{'es' * (result.passes > 1)}")
        farthest = max(result.norms, key=lambda norm: norm.moved)
        print(f"a mean moved by up to {farthest.moved:.2g} of its old standard deviations, in {farthest.name}")
        least, most = (pick(norm.spread[i] for norm in result.norms) for i, pick in enumerate((min, max)))
        print(f"variances are {least:.2g} to {most:.2g} times the old ones")
    parted = [norm.name for norm in result.norms if norm.parted]
    if parted:
        print(f"{len(parted)} had numbers in common with other nodes, and have their own now: {', '.join(parted[:4])}")
    if result.left:
        print(f"{len(result.left)} left:")
    for name, reason in result.left:
        print(f"  {name}: {reason}")
    print(f"written to {arguments.output}")
    return 0
