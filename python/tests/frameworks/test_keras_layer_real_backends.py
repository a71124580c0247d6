# SPDX-License-Identifier: Apache-2.0
"""The tests of batchnorm.keras over the back ends that they are not run over otherwise: a process has one of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")
TESTS = Path(__file__).with_name("test_keras_layer_real.py")


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_over(backend: str) -> None:
    pytest.importorskip(backend)
    python = TESTS.parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-c", python / "pyproject.toml", "--rootdir", python]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    environment.pop("BATCHNORM_TEST_SHARE", None)
    command += ["-W", "ignore", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed, done.stdout
    assert int(passed[1]) > 80
