# SPDX-License-Identifier: Apache-2.0
"""Terminals and bars that there are not."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """In place of tqdm. Returns what it will be called with: totals and units."""
    found: list[tuple[Any, str]] = []

    def tqdm(values: Any, total: Any, unit: str) -> Any:
        found.append((total, unit))
        return values

    module = types.ModuleType("tqdm")
    module.tqdm = tqdm  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", module)
    return found
