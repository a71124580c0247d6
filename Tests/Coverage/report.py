# SPDX-License-Identifier: Apache-2.0
"""report.py engine|package EXPORT: what the tests reach of each file; fails if an unreached place is not listed."""

from __future__ import annotations

import sys
from pathlib import Path

import engine
import package
from places import report

PARTS = {"engine": (engine.measures, ("Sources/",)), "package": (package.measures, ("python/",))}

measures, folders = PARTS[sys.argv[1]]
count = report(measures(Path(sys.argv[2])), folders)
print(count)
sys.exit(not count.endswith(" 0 failed"))
