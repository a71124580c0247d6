# SPDX-License-Identifier: Apache-2.0
"""A copy of the repository in which the package can be broken, and its tests run there, one process at a time."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.config import default_plugins

# A test that has come to no end after so many seconds of work will not, or after so many in which nothing works.
WORK, IDLE = 30, 60
MEMORY = 8 << 30  # bytes of addresses, for mutants that know no end
PEERS = "peers/test_"
NOTHING_FAILED = 0, 5  # statuses of pytest; 5 says that there was no test
PYTEST = ["-q", "--tb=no", "--assert=plain", "-p", "watching", "-p", "no:cacheprovider", "-o", "addopts="]
PYTEST += ["-c", "pyproject.toml", "--rootdir", "."]
# The imports of the tests, made once for all: each run is a fork.
IMPORTED = "numpy", "ml_dtypes", "h5py", "safetensors.numpy", "matplotlib.figure", "sklearn.model_selection", "onnx"


class Suite:
    """The copy, in a folder of its own below `build`."""

    def __init__(self, repository: Path, build: Path) -> None:
        self.root = build / "copy"
        self.python = self.root / "python"
        self._report, self._without = build / "report", build / "without"
        shutil.rmtree(self.root, ignore_errors=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=repository, check=True, capture_output=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            if (repository / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository / name, self.root / name)
        # Compiled by what they hold: a mutant of the same size in the same second is another file.
        compile_all = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "batchnorm", "tests"]
        subprocess.run([sys.executable, *compile_all], cwd=self.python, check=True)
        for name in (*IMPORTED, *(f"_pytest.{each}" for each in default_plugins)):
            with suppress(ImportError):
                import_module(name)
        scratch = build / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        self._environment = {
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "MPLCONFIGDIR": str(build / "matplotlib"),
            "MUTANTS_REPORT": str(self._report),
            "MUTANTS_WITHOUT": str(self._without),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join([str(self.python), str(Path(__file__).parent)]),
        }

    def files(self) -> list[str]:
        """The test files, and of those that compare with other packages the ones that need ONNX alone."""
        folder = self.python / "tests"
        paths = [*folder.glob("test_*.py"), *folder.glob(f"{PEERS}*onnx*.py")]
        return sorted(path.relative_to(self.python).as_posix() for path in paths)

    def run(
        self, tests: list[str], *options: str, without: Iterable[str] = (), **environment: str
    ) -> tuple[str | None, list[str]]:
        """Runs tests, and has the first that failed, or `timeout`, or None; and all that the run reports."""
        self._without.write_text("\n".join(without), encoding="utf-8")
        if "-W" not in options and tests and all(PEERS in test for test in tests):
            options = (*options, "-W", "ignore")  # warnings of peers are their affair
        self._report.write_text("")
        sys.stdout.flush()
        if (process := os.fork()) == 0:
            _become(self.python, self._report.with_suffix(".log"), {**self._environment, **environment})
            _test([*PYTEST, *options, *tests])
        try:
            status = self._ended(process)
        finally:
            _kill(process)
        lines = self._report.read_text(encoding="utf-8").splitlines()
        if status is None:
            return "timeout", lines
        failed = [line.partition(" ")[2] for line in lines if line.startswith("failed ")]
        if not failed and status not in NOTHING_FAILED:
            # The process came to an end within a test; or before any, when the package could not be imported.
            started = [line.partition(" ")[2] for line in lines if line.startswith("start ")]
            failed = started[-1:] or ["tests/conftest.py"]
        return (failed[0] if failed else None), lines

    def _ended(self, process: int) -> int | None:
        """Returns the status that a process exits with, or None if its report does not go on."""
        told, done, last, since = 0.0, 0.0, 0.0, time.time()
        pause = 0.01
        while (found := os.waitpid(process, os.WNOHANG)) == (0, 0):
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            if (at := self._report.stat().st_mtime) != told:
                told, done = at, _seconds(process)
            if (now := _seconds(process)) != last:
                last, since = now, time.time()
            if now - done > WORK or time.time() - since > IDLE:
                return None
        return os.waitstatus_to_exitcode(found[1])


def _become(folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Makes this process one of its own, that works in a folder and writes into a log."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _test(arguments: list[str]) -> NoReturn:
    """pytest, beside coverage.py if COVERAGE_PROCESS_START says so; then the process ends."""
    status = 1
    try:
        sys.dont_write_bytecode = True
        sys.argv = ["pytest", *arguments]
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
        measured = None
        if record := os.environ.get("COVERAGE_PROCESS_START"):
            from coverage import Coverage

            measured = Coverage(config_file=record)
            measured.start()
        status = int(pytest.main(arguments))
        if measured is not None:
            measured.stop()
            measured.save()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _seconds(session: int) -> float:
    """Returns the seconds that the processes of a session have worked."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _kill(process: int) -> None:
    """Ends a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(process, 0)
