# SPDX-License-Identifier: Apache-2.0
"""The one exception that is not built into Python."""

from __future__ import annotations

from .public import publish


@publish
class StateError(KeyError):
    """A key of a state is missing or unexpected: a KeyError that shows its sentence as it is, not in quotes."""

    def __str__(self) -> str:
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()
