# SPDX-License-Identifier: Apache-2.0
"""batch_norm() with the arguments of torch.nn.functional.batch_norm, in its order."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from .._core.arrays import Array
from .._core.options import flag
from .forward import forward_inference, forward_training


def batch_norm(
    x: ArrayLike,
    running_mean: Any,
    running_var: Any,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """y alone, as torch.nn.functional.batch_norm gives it. For gradients there is forward_training().

    Parameters
    ----------
    x : array_like of shape (N, C) or (N, C, ...)
    running_mean, running_var : array of shape (C,), or None
        In training they are updated in place, both or neither; else they are what x is normalized with, are only read,
        and are needed.
    weight, bias : array_like of shape (C,), optional
        gamma and beta.
    training : bool, default False
        True if x is normalized with its own statistics.
    momentum : float, default 0.1
        Weight of the new batch. None, which a layer has for the cumulative average, is an error, as it is in PyTorch.
    eps : float, default 1e-5
        Added to the variance.

    Returns
    -------
    y : ndarray
        A new array in x's memory order.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As in forward_training().

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> print(bn.batch_norm(x, mean, var, training=True, momentum=0.5, eps=0.0))
    [[-1. -1.]
     [ 1.  1.]]
    >>> print(mean, var, bn.batch_norm(x, mean, var, eps=0.0)[0])
    [ 1. 10.] [  1.5 100.5] [0. 0.]
    """
    if flag(training, "training"):
        y, _ = forward_training(
            x, weight, bias, running_mean=running_mean, running_var=running_var, momentum=momentum, eps=eps
        )
        return y
    return forward_inference(x, weight, bias, running_mean=running_mean, running_var=running_var, eps=eps)
