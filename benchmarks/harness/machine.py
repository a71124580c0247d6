# SPDX-License-Identifier: Apache-2.0
"""The machine: what it is, and how a process is given a part of it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
BUSY_LOAD, BUSY_PERCENT = 0.5, 2
ISAS = ("avx512", "avx2", "baseline")  # the widest first


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def slug() -> str:
    return re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")


def cache_bytes() -> dict[str, int]:
    """Data caches of one core, by level."""
    sizes = {}
    for index in sorted(CACHES.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            size = (index / "size").read_text().strip()  # such as 1024K
            sizes["L" + (index / "level").read_text().strip()] = int(size.rstrip("K")) * 1024
    return sizes


def describe() -> dict[str, object]:
    return {
        "processor": processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "caches": cache_bytes(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


class Load:
    """Signs of a busy machine: the load at the start, and the host's time for other guests from then on."""

    def __init__(self) -> None:
        self.before = self._ticks()
        self.at_start = os.getloadavg()[0]

    @staticmethod
    def _ticks() -> list[int]:
        """User, nice, system, idle, iowait, irq, softirq and steal, of all processors."""
        line = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
        return [int(ticks) for ticks in line.split()[1:9]]

    def described(self) -> str:
        """In words; none if there is no such sign."""
        ticks = [now - then for now, then in zip(self._ticks(), self.before)]
        stolen = 100 * ticks[7] / max(1, sum(ticks))
        parts = []
        if self.at_start > BUSY_LOAD:
            parts.append(f"the load was {self.at_start:.1f} at the start")
        if stolen > BUSY_PERCENT:
            parts.append(f"the host took {stolen:.0f} % of the processors' time")
        return " and ".join(parts)


def isas() -> list[str]:
    """The instruction sets that the library has on this machine, the widest first."""
    test = [sys.executable, "-c", "import batchnorm; batchnorm.isa()"]
    return [
        isa
        for isa in ISAS
        if not subprocess.run(test, env=environment(1, isa), stderr=subprocess.DEVNULL, check=False).returncode
    ]


def environment(threads: int, isa: str) -> dict[str, str]:
    """For a process that measures: the same number of threads for everybody, and no page faults.

    Memory that malloc has got stays with it, so that systems which return new arrays do not pay for fresh pages in
    each call.
    """
    number = str(threads)
    return {
        **os.environ,
        "BATCHNORM_ISA": isa,
        "BATCHNORM_NUM_THREADS": number,
        "OMP_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**28),
    }


@contextmanager
def granted(threads: int) -> Iterator[None]:
    """Grants processes that start meanwhile as many CPUs as threads: the last ones, as interrupts favour the first."""
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everything)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, everything)
