# SPDX-License-Identifier: Apache-2.0
"""Statistics per channel: of one array, of many, and of a file that is larger than memory."""

from .functions import inverse_std, merge_moments, moments, update_running
from .moments import Moments

__all__ = [
    "Moments",
    "inverse_std",
    "merge_moments",
    "moments",
    "update_running",
]
