# SPDX-License-Identifier: Apache-2.0
"""The binary of batchnorm-torch: what it asks for, and what is told where it does not fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import batchnorm as bn
from torch_operators import batchnorm_torch


def test_the_binary_asks_for_no_more_than_pytorchs_own_wheels() -> None:
    """They are manylinux_2_28. What it takes from PyTorch are functions of C alone: those have names that stay."""
    binary = Path(batchnorm_torch.LIBRARY).read_bytes()
    for name, newest in ((b"GLIBC_2.", 28), (b"GLIBCXX_3.4.", 24), (b"CXXABI_1.3.", 11)):
        found = [int(each) for each in re.findall(re.escape(name) + rb"(\d+)", binary)]
        assert found, name
        assert max(found) <= newest, name
    assert not re.findall(rb"\0_ZNK?(?:2at|3c10|5torch)\w+", binary)
    assert b"libtorch_cpu.so\0" in binary
    assert b"libbatchnorm" not in binary


def imported(tmp_path: Path, package: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """batchnorm.torch beside a batchnorm_torch of these sources."""
    folder = tmp_path / "batchnorm_torch"
    folder.mkdir()
    (folder / "__init__.py").write_text(package)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    code = "import batchnorm.torch as bt; print(bt.operators.THERE)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_a_package_that_does_not_fit_is_told_in_a_sentence(tmp_path: Path) -> None:
    copied = tmp_path / "operators.so"
    binary = Path(batchnorm_torch.LIBRARY).read_bytes()
    version, other = bn.__version__.encode(), "9" * len(bn.__version__)
    assert binary.count(b"\0" + version + b"\0") == 1
    copied.write_bytes(binary.replace(b"\0" + version + b"\0", b"\0" + other.encode() + b"\0"))
    run = imported(tmp_path, f"LIBRARY = {str(copied)!r}")
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: batchnorm-torch {other} is of another version than batchnorm {bn.__version__}: install "
        f"batchnorm-torch=={bn.__version__}, or remove it"
    )


@pytest.mark.parametrize("content", [None, b"text"])
def test_a_library_that_cannot_be_loaded_is_told(tmp_path: Path, content: bytes | None) -> None:
    library = tmp_path / "operators.so"
    if content is not None:
        library.write_bytes(content)
    run = imported(tmp_path, f"LIBRARY = {str(library)!r}")
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: batchnorm-torch could not be loaded: {library}: ")


def test_the_operators_can_be_left_out(tmp_path: Path) -> None:
    run = imported(tmp_path, "LIBRARY = 'none'", BATCHNORM_TORCH_OPERATORS="0")
    assert run.stdout == "False\n", run.stderr
