# SPDX-License-Identifier: Apache-2.0
"""A node BatchNormalization of any opset as a scale and a shift."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..deploy.scale_shift import ScaleShift, scale_shift
from ._onnx import attributes, is_a
from .constants import Constants
from .report import NotFoldedError

# Unless a node says otherwise. Attributes are float32, and so is this.
EPSILON = float(np.float32(1e-5))


def is_norm(node: Any) -> bool:
    return is_a(node, "BatchNormalization")


def in_training(node: Any, opset: int) -> str:
    """The setting by which a node takes the batch's own statistics; empty if it does not."""
    told = attributes(node)
    if any(each.ref_attr_name for each in node.attribute):
        return "settings that a function is given"
    if opset < 7 and not told.get("is_test", 0):
        return "is_test=0"
    if told.get("training_mode", 0):
        return "training_mode=1"
    if any(list(node.output)[1:]):
        return "outputs for running statistics"
    return ""


def form_of(node: Any, opset: int, constants: Constants) -> ScaleShift:
    """The numbers that a node multiplies by and adds; NotFoldedError if it does more, or if they are not known."""
    training = in_training(node, opset)
    if training:
        raise NotFoldedError(f"it has {training}, and takes the statistics of each batch")
    told = attributes(node)
    if opset < 9 and told.get("spatial", 1) != 1:
        raise NotFoldedError("it has spatial=0, and statistics for each position")
    arrays = [constants.get(name) for name in node.input[1:5]]
    for name, array in zip(node.input[1:5], arrays):
        if array is None:
            raise NotFoldedError(f"its parameters are not constant: {constants.why_not(name)}")
    try:
        gamma, beta, mean, var = arrays
        assert mean is not None
        assert var is not None
        eps = told.get("epsilon", EPSILON)
        if np.any(np.asarray(var, np.float64) + eps == 0):
            raise NotFoldedError("its variance + epsilon is 0 somewhere, by which the operator divides")
        return scale_shift(gamma, beta, mean, var, eps=eps)
    except (TypeError, ValueError) as error:
        raise NotFoldedError(str(error)) from None
