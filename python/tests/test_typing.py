# SPDX-License-Identifier: Apache-2.0
"""A type checker finds the errors in a user's code, and leaves the rest alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PACKAGE

USER = Path(__file__).with_name("typed_user.py")


def test_slips_are_found_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    settings = f"[mypy]\nstrict = True\nfollow_imports = silent\nmypy_path = {PACKAGE.parent}\n"
    (tmp_path / "mypy.ini").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(USER)], capture_output=True, text=True, check=False, cwd=tmp_path)
    found = {int(line) for line in re.findall(r"typed_user\.py:(\d+): error", done.stdout)}
    lines = USER.read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(expected) > 20
    assert found == expected, done.stdout + done.stderr
