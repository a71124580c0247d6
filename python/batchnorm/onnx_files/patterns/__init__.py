# SPDX-License-Identifier: Apache-2.0
"""The layers that a batch norm can become a part of, by operator."""

from __future__ import annotations

from typing import Any

from .convolution import Convolution
from .gemm import Gemm
from .linear import Linear
from .matmul import MatMul

LINEAR: dict[str, type[Linear]] = {
    "Conv": Convolution,
    "ConvTranspose": Convolution,
    "Gemm": Gemm,
    "MatMul": MatMul,
}


def linear(scope: Any, node: Any) -> Linear:
    """A node's layer; NotFoldedError if its weight is not known."""
    return LINEAR[node.op_type](scope, node)
