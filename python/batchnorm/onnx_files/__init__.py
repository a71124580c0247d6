# SPDX-License-Identifier: Apache-2.0
"""ONNX files: what is constant in a graph, and batch norms folded into their neighbours. Needs the package onnx."""

from .constants import Constants
from .fold_file import fold_file
from .folding import fold_model
from .reading import read_model
from .recalibrate_file import recalibrate_file
from .recalibrating import Recalibration, recalibrate_model
from .report import Fold, Report
from .verifying import Verification, verify

__all__ = [
    "Constants",
    "Fold",
    "Recalibration",
    "Report",
    "Verification",
    "fold_file",
    "fold_model",
    "read_model",
    "recalibrate_file",
    "recalibrate_model",
    "verify",
]
