# SPDX-License-Identifier: Apache-2.0
"""The interface of a system under measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from .problem import Array, Problem
from .workloads import Operation

Caller = Literal["python", "c"]


@dataclass(frozen=True)
class Trial:
    """One operation of one system on the buffers of a problem, ready to go."""

    run: Callable[[int], float]  # so many calls in a row; seconds for all of them
    result: Callable[[], Array] | None = None  # y or dx as they lie in memory; the floors compute nothing


class System(Protocol):
    """A library, or a floor that no library gets below."""

    name: str
    version: str
    caller: Caller  # where the calls come from: a call from Python costs microseconds that one from C does not
    composed: bool  # has no batch norm of its own, so that one is put together from elementary operations

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        """The operation on that problem, or None if the system does not have it."""
