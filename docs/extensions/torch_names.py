# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch and the like for whoever reads their docstrings, without PyTorch: there is a name for each name."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

from sphinx.ext.autodoc.mock import mock


def load() -> None:
    versions = {"torch": "2.10", "sklearn": "1.6", "keras": "3.4"}
    with mock(list(versions)):
        for name, version in versions.items():
            importlib.import_module(name)
            sys.modules[name].__version__ = version  # type: ignore[attr-defined]
        sys.modules["keras"].backend = SimpleNamespace(backend=lambda: "numpy")  # type: ignore[attr-defined]
        for name in versions:
            importlib.import_module(f"batchnorm.{name}")
