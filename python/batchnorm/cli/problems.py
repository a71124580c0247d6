# SPDX-License-Identifier: Apache-2.0
"""Errors that a command prints as a sentence, in place of a traceback."""

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
