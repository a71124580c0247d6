# SPDX-License-Identifier: Apache-2.0
"""torchvision, also where it was compiled for another build of PyTorch.

Its operators are missing then. The comparisons here need no more than their names.
"""

from __future__ import annotations

import importlib

from in_torch import torch

try:
    importlib.import_module("torchvision")
except ImportError:
    pass
except RuntimeError:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
