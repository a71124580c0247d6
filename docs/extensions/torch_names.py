# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch for whoever reads its docstrings, without PyTorch: there is a name for each name of it."""

from __future__ import annotations

import importlib
import sys

from sphinx.ext.autodoc.mock import mock


def load() -> None:
    with mock(["torch"]):
        importlib.import_module("torch")
        sys.modules["torch"].__version__ = "2.10"  # type: ignore[attr-defined]
        importlib.import_module("batchnorm.torch")
