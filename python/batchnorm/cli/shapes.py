# SPDX-License-Identifier: Apache-2.0
"""The argument name=1,3,224,224, as argparse wants it."""

from __future__ import annotations

import argparse


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, separator, lengths = text.rpartition("=")
    numbers = lengths.split(",") if lengths else []
    if not separator or not name or not all(each.isdecimal() for each in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=1,3,224,224")
    return name, tuple(int(each) for each in numbers)
