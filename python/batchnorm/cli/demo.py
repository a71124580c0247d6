# SPDX-License-Identifier: Apache-2.0
"""`batchnorm demo`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from .numbers import count, rate
from .problems import UserError, needing

# The packages that the demo needs beside NumPy, by the name they are imported under.
PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("batchnorm-demo.png"), metavar="PATH", help="the picture (%(default)s)"
    )
    parser.add_argument("--seeds", type=count, metavar="N", help="runs of each kind")
    parser.add_argument("--epochs", type=count, metavar="N", help="passes over the training images")
    parser.add_argument("--learning-rates", type=rate, nargs="+", metavar="RATE", help="those to be compared")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, epochs and learning rates, unless given")


def run(arguments: argparse.Namespace) -> int:
    with needing("this", PACKAGES):
        from ..demo import comparison as demo

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
    return 0
