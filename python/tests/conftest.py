# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests.

Random numbers come from the fixture `rng`. Its seed is the environment's BATCHNORM_TEST_SEED (default 0) together with
the test's name; it is printed with the failure.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

import batchnorm as bn


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    seed = int(os.environ.get("BATCHNORM_TEST_SEED", "0"))
    print(f"BATCHNORM_TEST_SEED={seed}")
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    bn.set_num_threads(0)
