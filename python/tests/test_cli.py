# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: what it loads, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers import PACKAGE, python

import batchnorm as bn
from batchnorm import cli
from batchnorm.cli.problems import UserError, needing

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
COMMAND = [sys.executable, "-m", "batchnorm"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"batchnorm {bn.__version__}\n"


@pytest.mark.parametrize(
    ("how", "arguments"),
    [("module", ["--help"])]
    + [("script", each) for each in (["--help"], ["--version"], [], *([each, "--help"] for each in cli.COMMANDS))],
)
def test_help_loads_neither_numpy_nor_the_library(how: str, arguments: list[str]) -> None:
    run = {
        "script": "from batchnorm.cli import main; main()",
        "module": "import runpy; runpy.run_module('batchnorm', run_name='__main__', alter_sys=True)",
    }[how]
    code = f"import sys, atexit\nthere = set(sys.modules)\nsys.argv[1:] = {arguments}\nsys.argv[0] = 'batchnorm'\n"
    code += "new = lambda: sorted({each.split('.')[0] for each in set(sys.modules) - there})\n"
    code += "atexit.register(lambda: print('loaded', *new()))\n"
    done = python(code + run, BATCHNORM_LIBRARY="/none")
    loaded = done.stdout.splitlines()[-1].split()[1:]
    assert "batchnorm" in loaded
    slow = {"numpy", "ctypes", "matplotlib", "onnx", "torch", "h5py"}
    assert not ({*slow, "typing"} if (how, *arguments) == ("script", "--help") else slow) & set(loaded)
    assert done.returncode == (0 if {"--help", "--version"} & set(arguments) else 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_is_a_module_and_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"batchnorm.cli.{command}")
    assert callable(module.run)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"batchnorm {command}" in capsys.readouterr().out


def test_no_library_is_a_sentence() -> None:
    done = subprocess.run(
        [*COMMAND, "info"],
        env={**ENVIRONMENT, "BATCHNORM_LIBRARY": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("batchnorm info: libbatchnorm.so was not found. Tried (from BATCHNORM_LIBRARY):\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_nobody_reads(unbuffered: str) -> None:
    """`batchnorm info | head -0` has such a pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [*COMMAND, "info"], env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_is_full(unbuffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "info"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("batchnorm")
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("batchnorm.cli.info"), "run", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error", [OSError("no such thing"), MemoryError(), ImportError("no h5py"), RuntimeError("told")]
)
def test_errors_are_sentences(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(_: object) -> int:
        raise error

    monkeypatch.setattr(import_module("batchnorm.cli.info"), "run", failing)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == f"batchnorm info: {error if str(error) else 'MemoryError'}\n"


def test_a_package_that_another_one_lacks() -> None:
    """It is no word to the user of what to install: that package is broken."""
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"), needing("this", {"onnx": "onnx"}):
        import_module("surely_not_there")
    with (
        pytest.raises(UserError, match="^this needs PIL: pip install PIL$"),
        needing("this", {"surely_not_there": "PIL"}),
    ):
        import_module("surely_not_there")


def test_an_output_that_is_no_file() -> None:
    """Such as a notebook's, which no errors can be set for."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert cli.main(["info"]) == 0
    assert bn.isa() in output.getvalue()
