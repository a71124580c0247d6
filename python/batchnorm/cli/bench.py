# SPDX-License-Identifier: Apache-2.0
"""`batchnorm bench`: how fast the library is here."""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import TYPE_CHECKING

from .numbers import count, rate
from .problems import UserError, needing
from .tables import table

if TYPE_CHECKING:
    from ..machine import Speed

# Times of a machine of which others take this share are not to be trusted.
BUSY = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=shape, default=(32, 64, 56, 56), metavar="N,C,H,W", help="of x (32,64,56,56)")
    dtypes = ["float32", "float64", "float16", "bfloat16"]
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of x (%(default)s)")
    parser.add_argument("--seconds", type=rate, default=10.0, metavar="S", help="how long to measure (%(default)g)")
    parser.add_argument("--json", action="store_true", help="for programs")


def shape(text: str) -> tuple[int, ...]:
    """N,C and what comes after."""
    extents = tuple(count(part) for part in text.split(","))
    if len(extents) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} has no channels, expected N,C or N,C,H,W")
    return extents


def run(arguments: argparse.Namespace) -> int:
    with needing("bfloat16", {"ml_dtypes": "ml_dtypes"}):
        if arguments.dtype == "bfloat16":
            import ml_dtypes  # noqa: F401
    import numpy as np

    import batchnorm as bn

    from .. import machine

    extents: tuple[int, ...] = arguments.shape
    dtype = np.dtype(arguments.dtype)
    # Some tensors at once, in float32 at least.
    needed = 10 * math.prod(extents) * max(dtype.itemsize, 4)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(f"--shape {','.join(map(str, extents))} needs {needed / 1e9:.0f} GB, of {there / 1e9:.0f} GB")
    cpus = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    busy = load > BUSY * cpus
    try:
        speeds, rounds = machine.measure(extents, dtype, arguments.seconds)
    except ValueError as error:
        raise UserError(str(error)) from None
    if arguments.json:
        _print_json(arguments, speeds, rounds, load, busy)
        return 0
    megabytes = math.prod(extents) * dtype.itemsize / 1e6
    print(
        f"x {arguments.dtype} {extents}, {megabytes:.1f} MB; {bn.isa()}, threads: {bn.get_num_threads()}, of NumPy 1\n"
    )
    _print_table(speeds)
    print(f"\nMedians of {rounds} rounds in turns; bytes are tensors read and written once.")
    if busy:
        print(f"The machine is busy (load {load:.1f} on {cpus} CPUs): do not trust these figures.")
    return 0


def _print_json(arguments: argparse.Namespace, speeds: list[Speed], rounds: int, load: float, busy: bool) -> None:
    import batchnorm as bn

    results = [{"what": s.what, "by": s.by, "ms": 1e3 * s.seconds, "gb_per_s": s.gigabytes_per_second} for s in speeds]
    facts = {"shape": arguments.shape, "dtype": arguments.dtype, "isa": bn.isa(), "threads": bn.get_num_threads()}
    print(json.dumps({**facts, "rounds": rounds, "load": load, "busy": busy, "results": results}, indent=2))


def _print_table(speeds: list[Speed]) -> None:
    """Milliseconds, bandwidth, and its share of the first row's, which is a copy."""
    rows = []
    for s in speeds:
        share = s.gigabytes_per_second / speeds[0].gigabytes_per_second
        rows.append([s.what, s.by, f"{1e3 * s.seconds:.3g}", f"{s.gigabytes_per_second:.3g}", f"{share:.0%}"])
    print(table(("", "by", "ms", "GB/s", "of the copy"), rows, left=2))
