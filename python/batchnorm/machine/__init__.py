# SPDX-License-Identifier: Apache-2.0
"""The library on this machine: what it runs on, whether it computes right here, and how fast it is."""

from .facts import facts
from .self_test import Deviation, self_test
from .speed import Speed, measure

__all__ = ["Deviation", "Speed", "facts", "measure", "self_test"]
