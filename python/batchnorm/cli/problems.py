# SPDX-License-Identifier: Apache-2.0
"""Sentences that a command has in place of a traceback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right; the message says what."""


@contextmanager
def needing(purpose: str, packages: Mapping[str, str]) -> Iterator[None]:
    """Imports within that may lack one of `packages`, which maps names of modules to names for pip."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = packages.get((error.name or "").split(".")[0])
        if package is None:
            raise
        raise UserError(f"{purpose} needs {package}: pip install {' '.join(packages.values())}") from error


def one_line(error: BaseException) -> str:
    """The first paragraph of a message, in one line: torch and h5py write pages."""
    return printable(" ".join(str(error).strip().split("\n\n", maxsplit=1)[0].split())[:500])


def printable(text: str) -> str:
    """Without what would move a terminal's cursor: names come from files that anybody may have written."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
