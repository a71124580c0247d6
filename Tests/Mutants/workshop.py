# SPDX-License-Identifier: Apache-2.0
"""A folder in which mutants of the engine and of its loops are built and judged: sources, objects, and C tests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import table
from table import Row

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build-mutants"
LOOPS = "Sources/Kernels/"
MODULES = ["BatchNorm", "KernelsBaseline", "KernelsAVX2", "KernelsAVX512"]
# These flags are those of Package.swift.
WIDE = {
    "KernelsAVX2": ["-mavx2", "-mfma", "-mf16c"],
    "KernelsAVX512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mprefer-vector-width=512"],
}
FLAGS = ["-swift-version", "5", "-parse-as-library", "-enable-experimental-feature", "Embedded", "-wmo"]
FLAGS += ["-Ounchecked"]
LINKED = ["-Wl,--gc-sections", "-Wl,-soname=libbatchnorm.so.2"]
LINKED += ["-Wl,--version-script=Sources/BatchNorm/ABI/batchnorm.map"]
# They compare instruction sets with each other.
COMPARING = {"test_isa", "test_environment"}
# A test that takes so many times as long as with the library as it is, and as many seconds, hangs.
PATIENCE = 5


class Workshop:
    """One library and the tests beside it, in a folder."""

    def __init__(self, name: str) -> None:
        self.path = BUILD / name
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        for folder in ("Sources", "Include"):
            shutil.copytree(ROOT / folder, self.path / folder, symlinks=True)

    def build(self) -> None:
        """The library as it is; its objects are kept for the next time."""
        sources = b"".join(file.read_bytes() for file in sorted(self.path.rglob("*.swift")))
        kept = BUILD / hashlib.sha256(sources).hexdigest()[:16]
        if not kept.exists():
            for module in MODULES:
                if not self.compile(module):
                    sys.exit(f"{module} does not build")
            kept.mkdir()
            for module in MODULES:
                shutil.copy(self.path / f"{module}.o", kept)
        for module in MODULES:
            shutil.copy(kept / f"{module}.o", self.path)
        self.link()

    def compile(self, module: str) -> bool:
        """False if the compiler refuses the sources."""
        swiftc = Path(shutil.which("swiftc") or "swiftc").resolve().with_name("swiftc")
        folders = ["-I", "Sources/CKernels", "-I", "Include", "-module-cache-path", str(BUILD / "modules")]
        for flag in ["-ISources/CKernels", "-IInclude", *WIDE.get(module, [])]:
            folders += ["-Xcc", flag]
        # The link to the shared loops is not followed by rglob.
        folders_of_sources = [self.path / "Sources" / module, self.path / "Sources" / module / "Shared"]
        sources = sorted({str(file) for folder in folders_of_sources for file in folder.rglob("*.swift")})
        output = ["-module-name", module, "-c", *sources, "-o", f"{module}.o"]
        return self._run([str(swiftc), *FLAGS, *folders, *output]).returncode == 0

    def link(self) -> None:
        objects = [f"{module}.o" for module in MODULES]
        self._cc("-shared", *objects, *LINKED, "-lpthread", "-o", "libbatchnorm.so.2")

    def compile_tests(self) -> list[str]:
        """Compiles the tests of Tests/C, and those of Tests/Faults in their short form."""
        flags = ["-O1", "-pthread", "-I", "Include", "-Wl,-rpath,$ORIGIN"]
        programs = []
        for source in sorted((ROOT / "Tests/C").glob("test_*.c")):
            programs.append(source.stem)
            self._cc("-std=c99", *flags, str(source), "libbatchnorm.so.2", "-lm", "-o", source.stem)
        flags += ["-std=gnu11", "-fno-strict-aliasing"]
        interpose = ROOT / "Tests/Faults/interpose.c"
        self._cc(*flags, "-fPIC", "-shared", str(interpose), "-ldl", "-o", "libinterpose.so")
        # loads makes copies of the library that ships.
        for source in sorted(set((ROOT / "Tests/Faults").glob("*.c")) - {interpose, interpose.with_name("loads.c")}):
            programs.append(f"faults_{source.stem}")
            self._cc(*flags, str(source), "libinterpose.so", "libbatchnorm.so.2", "-ldl", "-lm", "-o", programs[-1])
        return programs

    def _cc(self, *arguments: str) -> None:
        self._run(["cc", *arguments]).check_returncode()

    def take_over(self, other: Workshop) -> None:
        """Copies what another workshop has built."""
        for pattern in ("*.o", "test_*", "faults_*", "*.so*"):
            for made in other.path.glob(pattern):
                shutil.copy(made, self.path)

    def passes(self, test: str, *, alone: bool, timeout: float, work: float = float("inf")) -> bool:
        """True if a test passes, with the baseline alone or the widest instruction set. Beyond `timeout` it is an
        error, and beyond `work` seconds of a processor it fails.
        """
        environment = {**os.environ, "BATCHNORM_ISA": "baseline"} if alone else None
        limit = [] if math.isinf(work) else ["prlimit", f"--cpu={math.ceil(work)}"]
        done = self._run([*limit, str(self.path / test)], timeout, environment)
        return done.returncode == 0 and b" 0 failed" in done.stdout.rstrip().rsplit(b"\n", 1)[-1]

    def killed_by(self, test: str, *, alone: bool, seconds: float) -> str | None:
        """The test, if it notices the mutant. A test that seems to hang gets much longer, but no more work: others may
        have taken the processors.
        """
        allowed = PATIENCE * (1 + seconds)
        try:
            return None if self.passes(test, alone=alone, timeout=allowed) else test
        except subprocess.TimeoutExpired:
            pass
        work = allowed * (os.cpu_count() or 1)
        try:
            return None if self.passes(test, alone=alone, timeout=10 * allowed, work=work) else test
        except subprocess.TimeoutExpired:
            return f"{test}, which hangs"

    def _run(
        self, command: list[str], timeout: float | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, cwd=self.path, capture_output=True, timeout=timeout, env=environment, check=False
        )


class Tests:
    """The tests that take no more than `longest` seconds, in the order in which they pay."""

    def __init__(self, workshop: Workshop, programs: list[str], longest: float) -> None:
        timed = BUILD / "seconds.json"
        self.seconds: dict[str, float] = json.loads(timed.read_text()) if timed.exists() else {}
        for program in set(programs) - set(self.seconds):
            started = time.monotonic()
            if not workshop.passes(program, alone=False, timeout=3600):
                sys.exit(f"{program} fails with the library as it is")
            self.seconds[program] = time.monotonic() - started + 0.01
        timed.write_text(json.dumps(self.seconds))
        self.kills = {program: 0.1 for program in programs if self.seconds[program] <= longest}

    def ordered(self, first: str, *, alone: bool) -> list[str]:
        names = [name for name in self.kills if not (alone and name in COMPARING)]
        return sorted(names, key=lambda name: (name != first, -self.kills[name] / self.seconds[name]))


def judge(workshop: Workshop, tests: Tests, row: Row) -> bool:
    """Sets the row's killer; False if the compiler refuses the mutant, or its place is no more."""
    file = workshop.path / row.file
    source = file.read_text()
    alone = row.file.startswith(LOOPS)
    module = "KernelsBaseline" if alone else "BatchNorm"
    mutant = table.mutated(source, row)
    if mutant is None:
        return False
    kept = (workshop.path / f"{module}.o").read_bytes()
    file.write_text(mutant)
    try:
        # Without optimization it is built in half the time, but takes more stack than tests allow, and is slow.
        if not workshop.compile(module):
            return False
        workshop.link()
        known, row.killer = row.killer.split(",")[0], "survived"
        for test in tests.ordered(known, alone=alone):
            killer = workshop.killed_by(test, alone=alone, seconds=tests.seconds[test])
            if killer:
                row.killer = killer
                tests.kills[test] += killer == test
                break
        return True
    finally:
        file.write_text(source)
        (workshop.path / f"{module}.o").write_bytes(kept)
