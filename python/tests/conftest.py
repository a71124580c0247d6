# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests.

Random numbers come from the fixture `rng`. Its seed is the environment's BATCHNORM_TEST_SEED (default 0) together with
the test's name; it is printed with the failure.

BATCHNORM_TEST_SHARE=K/N takes every N-th case of each test, from the K-th on, and at least one. The cases are shuffled
first, the same way each time: in their own order every N-th may have one value of a parameter, and never another.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

import batchnorm as bn


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share = os.environ.get("BATCHNORM_TEST_SHARE")
    if share is None:
        return
    first, step = map(int, share.split("/"))
    if not 1 <= first <= step:
        raise pytest.UsageError(f"BATCHNORM_TEST_SHARE is {share!r}, and not K/N with K from 1 to N")
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    shuffled = [sorted(cases, key=lambda item: zlib.crc32(item.nodeid.encode())) for cases in tests.values()]
    kept = {item for cases in shuffled for item in cases[(first - 1) % len(cases) :: step]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    seed = int(os.environ.get("BATCHNORM_TEST_SEED", "0"))
    print(f"BATCHNORM_TEST_SEED={seed}")
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    bn.set_num_threads(0)
