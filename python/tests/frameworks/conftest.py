# SPDX-License-Identifier: Apache-2.0
"""Layers for frameworks are compared with the frameworks' own, by the means of the tests with peers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))
