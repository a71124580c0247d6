# SPDX-License-Identifier: Apache-2.0
"""The batch norms of a model file: their numbers, and what is wrong with them."""

from .._finding_kinds import KINDS
from .findings import Finding, findings
from .norm import Norm
from .reading import SUFFIXES, read_norms

__all__ = ["KINDS", "SUFFIXES", "Finding", "Norm", "findings", "read_norms"]
