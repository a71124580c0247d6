# SPDX-License-Identifier: Apache-2.0
"""Layers, states, files and operators of other frameworks."""

from . import keras as keras
from .files import read_state, write_state
from .states import FrameworkState, from_state, to_state

__all__ = [
    "FrameworkState",
    "from_state",
    "read_state",
    "to_state",
    "write_state",
]
