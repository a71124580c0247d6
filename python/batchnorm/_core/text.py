# SPDX-License-Identifier: Apache-2.0
"""Text that others wrote, as a line of a terminal can hold it."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The first paragraph of a message, in one line: torch and h5py write pages."""
    return printable(" ".join(str(error).strip().split("\n\n", maxsplit=1)[0].split())[:500])


def printable(text: str) -> str:
    """Without what would move a terminal's cursor: names come from files that anybody may have written."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
