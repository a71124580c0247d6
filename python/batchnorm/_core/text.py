# SPDX-License-Identifier: Apache-2.0
"""Text of files and of other packages, made fit for a line of a terminal."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The first paragraph of a message, in one line: torch and h5py write pages."""
    return printable(" ".join(str(error).strip().split("\n\n", maxsplit=1)[0].split())[:500])


def printable(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor: names may come from a stranger's file."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
