# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit status 0: done; 1: it could not be done, for the reason given; 2: it was not understood."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import batchnorm as bn

from ._c_api import find_library

# What the demo needs beside NumPy, by the name it is imported under.
DEMO_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


class UserError(Exception):
    """Something that the user can put right; the message says what."""


def count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m batchnorm", description="Batch normalization for NumPy arrays.")
    commands = root.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser("demo", help="train a network on real digits, without and with batch norm")
    demo.set_defaults(run=run_demo)
    demo.add_argument(
        "--output", type=Path, default=Path("batchnorm-demo.png"), metavar="PATH", help="the picture (%(default)s)"
    )
    demo.add_argument("--seeds", type=count, metavar="N", help="runs of each kind")
    demo.add_argument("--epochs", type=count, metavar="N", help="passes over the training images")
    demo.add_argument("--learning-rates", type=rate, nargs="+", metavar="RATE", help="those to be compared")
    demo.add_argument("--quick", action="store_true", help="fewer seeds, epochs and learning rates, unless given")

    info = commands.add_parser("info", help="version, instruction set, threads and place of the library")
    info.set_defaults(run=run_info)
    return root


def run_demo(arguments: argparse.Namespace) -> None:
    try:
        from . import demo
    except ModuleNotFoundError as error:
        package = DEMO_PACKAGES.get((error.name or "").split(".")[0])
        if package is None:
            raise
        all_of_them = " ".join(DEMO_PACKAGES.values())
        raise UserError(f"the demo needs {package}: pip install {all_of_them}") from error

    output: Path = arguments.output
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"no file can be written at {output}")
    given = {
        "seeds": arguments.seeds,
        "epochs": arguments.epochs,
        "learning_rates": arguments.learning_rates and tuple(arguments.learning_rates),
    }
    settings = demo.QUICK if arguments.quick else demo.Settings()
    demo.run(output, replace(settings, **{name: value for name, value in given.items() if value is not None}))


def run_info(_: argparse.Namespace) -> None:
    facts = {"version": bn.__version__, "isa": bn.isa(), "threads": bn.get_num_threads(), "library": find_library()}
    for name, fact in facts.items():
        print(f"{name:8} {fact}")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (UserError, OSError, RuntimeError) as error:  # RuntimeError: an environment variable that cannot be honoured
        print(f"batchnorm: {error}", file=sys.stderr)
        return 1
    return 0
