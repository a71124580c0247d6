# SPDX-License-Identifier: Apache-2.0
"""Experiments, measured once for all tests."""

from __future__ import annotations

from functools import cache

import pytest

from batchnorm.cli.experiments import PACKAGES

for package in PACKAGES:
    pytest.importorskip(package)


from batchnorm.experiments import result  # noqa: E402
from batchnorm.experiments.result import Result, Settings  # noqa: E402

SEEDS = (0, 1, 2)
Patch = pytest.MonkeyPatch


@cache
def measured(name: str) -> Result:
    return result.perform(name, Settings(SEEDS, quick=True))
