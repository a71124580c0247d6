# SPDX-License-Identifier: Apache-2.0
"""A bar that shows how far a loop has come, by the package tqdm."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

Value = TypeVar("Value")


def shown(values: Iterable[Value], progress: bool | None, total: int | None, unit: str) -> Iterable[Value]:
    """`values`, counted by a bar on stderr as they are taken.

    With `progress` None there is a bar if stderr is a terminal and tqdm is installed; True needs tqdm.
    """
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress is {progress!r}, expected True, False or None")
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
        needed = False
    else:
        needed = progress
    if not progress:
        return values
    try:
        from tqdm import tqdm
    except ImportError:
        if needed:
            raise ImportError("progress=True needs tqdm: pip install 'batchnorm[progress]'") from None
        return values
    bar: Iterable[Value] = tqdm(values, total=total, unit=unit)
    return bar
