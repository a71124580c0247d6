# SPDX-License-Identifier: Apache-2.0
"""`batchnorm info`: what is loaded, and what it runs on."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(_: argparse.Namespace) -> int:
    import batchnorm as bn
    from batchnorm._c_api import find_library

    facts = {"version": bn.__version__, "isa": bn.isa(), "threads": bn.get_num_threads(), "library": find_library()}
    for name, fact in facts.items():
        print(f"{name:8} {fact}")
    return 0
