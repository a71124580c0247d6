# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch and the like for whoever reads their docstrings, without PyTorch: there is a name for each name."""

from __future__ import annotations

import importlib
import sys

from sphinx.ext.autodoc.mock import mock


def load() -> None:
    versions = {"sklearn": "1.6", "torch": "2.10"}
    with mock(list(versions)):
        for name, version in versions.items():
            importlib.import_module(name)
            sys.modules[name].__version__ = version  # type: ignore[attr-defined]
            importlib.import_module(f"batchnorm.{name}")
