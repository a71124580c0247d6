# SPDX-License-Identifier: Apache-2.0
"""ONNX files: what is constant in a graph, and batch norms folded into their neighbours. Needs the package onnx."""

from .constants import Constants
from .folding import fold_model
from .reading import read_model
from .report import Fold, Report

__all__ = ["Constants", "Fold", "Report", "fold_model", "read_model"]
