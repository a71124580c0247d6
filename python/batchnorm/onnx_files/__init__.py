# SPDX-License-Identifier: Apache-2.0
"""ONNX files: what is constant in a graph, and batch norms folded into their neighbours. Needs the package onnx."""

from .constants import Constants
from .reading import read_model

__all__ = ["Constants", "read_model"]
