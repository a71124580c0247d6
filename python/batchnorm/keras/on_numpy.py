# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation with NumPy arrays. Over NumPy Keras knows no gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..functional import forward_inference, forward_training
from .batch import POLICY, Batch, fits


def evaluated(layer: Any, x: Any) -> Any:
    """y by the moving averages."""
    running = {"running_mean": layer.moving_mean.value, "running_var": layer.moving_variance.value}
    gamma = layer.gamma.value if layer.scale else None
    beta = layer.beta.value if layer.center else None
    return forward_inference(x, gamma, beta, **running, axis=layer.axis, eps=layer.epsilon)


def takes(x: Any, mask: Any, axis: int) -> bool:
    return mask is None or fits(mask, x, axis)


def trained(x: Any, gamma: Any, beta: Any, axis: int, eps: float, mask: Any) -> Batch:
    mean, variance = np.zeros((2, x.shape[axis]), np.float64 if x.dtype == np.float64 else np.float32)
    told: dict[str, Any] = {"axis": axis, "eps": eps, "momentum": 1.0, "unbiased": False}
    if mask is not None or x.size <= x.shape[axis]:
        told.update(running=POLICY, weights=None if mask is None else np.asarray(mask) != 0)
    y, saved = forward_training(x, gamma, beta, running_mean=mean, running_var=variance, **told)
    return Batch.of(y, mean, variance, saved)
