# SPDX-License-Identifier: Apache-2.0
"""PyTorch's operators of the package batchnorm, which batchnorm.torch finds here. There is nothing else to import."""

from pathlib import Path

__all__ = ["LIBRARY"]

LIBRARY = str(Path(__file__).with_name("operators.so"))
