# SPDX-License-Identifier: Apache-2.0
"""The operator BatchNormalization of ONNX, a function for each of its versions from opset 7 on.

::

    Y            = (X - mean) / sqrt(var + epsilon) * scale + B
    running_mean = input_mean * momentum + current_mean * (1 - momentum)
    running_var  = input_var  * momentum + current_var  * (1 - momentum)

mean and var are the inputs in inference and those of X, the current ones, in training. Arguments have the names that
the specification gives to inputs and attributes. momentum is the weight of the old statistics. Every variance is over
M, the number of values per channel, also that of opsets 7 and 9, which do not say.

Inputs are not modified. Types that may differ are converted where that is exact, so that results are rounded once, to
the type that the specification gives them; floats that are no arrays are float64. Attributes of a model are float32:
its epsilon of 1e-5 is float(np.float32(1e-5)).

One value per channel has variance 0 in training: Y is B. Without values, which the specification leaves undefined, the
current statistics are 0, and the running ones stay what they are. With epsilon 0, a variance of 0 gives B, not NaN.
"""

# ruff: noqa: N803  (the names are ONNX's)

from __future__ import annotations

from numpy.typing import ArrayLike

from .._core.rounding import cast
from .onnx_formula import Array, Results, check_same_dtype, choice, computed, inputs


def batch_normalization_7(
    X: ArrayLike,
    scale: ArrayLike,
    B: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    outputs: int = 1,
) -> Array | tuple[Array, ...]:
    """BatchNormalization of opsets 7 and 8. Like batch_normalization_9(), but with `spatial`, and for two axes or more.

    Parameters
    ----------
    X, scale, B, mean, var, epsilon, momentum, outputs
        As in batch_normalization_9().
    spatial : int, default 1
        With 0, each of the C x D1 x ... x Dn positions of a sample is normalized over the batch alone; scale, B, mean
        and var are of that shape then.

    Returns
    -------
    Y, or (Y, mean, var, saved_mean, saved_var)
        As from batch_normalization_9().

    Raises
    ------
    ValueError, TypeError
        As batch_normalization_9() does.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> X = np.float32([[[1, 10]], [[3, 30]]])
    >>> one, zero = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    >>> told = {"epsilon": 0, "momentum": 0, "spatial": 0, "outputs": 5}
    >>> Y, mean, var, _, _ = bn.onnx.batch_normalization_7(X, one, zero, zero, one, **told)
    >>> print(Y[:, 0], mean, var)
    [[-1. -1.]
     [ 1.  1.]] [[ 2. 20.]] [[  1. 100.]]
    """
    is_spatial = choice(spatial, "spatial", (0, 1)) == 1
    return _of_outputs(inputs(X, scale, B, mean, var), epsilon, momentum, outputs, 2, is_spatial)


def batch_normalization_9(
    X: ArrayLike,
    scale: ArrayLike,
    B: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    outputs: int = 1,
) -> Array | tuple[Array, ...]:
    """BatchNormalization of opsets 9 to 13, in which the number of outputs tells training from inference.

    Parameters
    ----------
    X : array_like of float16, float32 or float64
        Of shape (N, C, D1, ..., Dn); or (N,), with C = 1.
    scale, B, mean, var : array_like of X's type, of shape (C,)
    epsilon : float, default 1e-5
        Added to the variance: finite, at least 0.
    momentum : float, default 0.9
        Weight of the old running statistics, from 0 to 1.
    outputs : 1 or 5, default 1
        The number of outputs; 5 means training.

    Returns
    -------
    Y : ndarray
        Of X's shape, type and memory order. With 5 outputs the first of a tuple, and so on:
    mean, var : ndarray
        The new running statistics.
    saved_mean, saved_var : ndarray
        Mean and variance of X per channel. ONNX Runtime has 1 / sqrt(variance + epsilon) as the second.

    Raises
    ------
    ValueError
        A shape does not fit, or an attribute is out of its range.
    TypeError
        A type is none of those that the opset takes, or types differ that have to be the same.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> X = np.float32([[1, 10], [3, 30]])
    >>> scale, B, mean, var = np.float32([[1, 2], [0, 1], [0, 10], [1, 100]])
    >>> print(bn.onnx.batch_normalization_9(X, scale, B, mean, var, epsilon=0))
    [[1. 1.]
     [3. 5.]]
    >>> for each in bn.onnx.batch_normalization_9(X, scale, B, mean, var, epsilon=0, momentum=0.5, outputs=5):
    ...     print(each)
    [[-1. -1.]
     [ 1.  3.]]
    [ 1. 15.]
    [  1. 100.]
    [ 2. 20.]
    [  1. 100.]
    """
    return _of_outputs(inputs(X, scale, B, mean, var), epsilon, momentum, outputs, 1, True)


def batch_normalization_14(
    X: ArrayLike,
    scale: ArrayLike,
    B: ArrayLike,
    input_mean: ArrayLike,
    input_var: ArrayLike,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array | tuple[Array, ...]:
    """BatchNormalization of opset 14. Like batch_normalization_15(), but scale and B are of X's type.

    Parameters
    ----------
    X, scale, B, input_mean, input_var, epsilon, momentum, training_mode
        As in batch_normalization_15().

    Returns
    -------
    Y, or (Y, running_mean, running_var)
        As from batch_normalization_15().

    Raises
    ------
    ValueError, TypeError
        As batch_normalization_15() does.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> print(bn.onnx.batch_normalization_14(np.float32([2, 4]), one, zero, one, one, epsilon=0))
    [1. 3.]
    """
    given = inputs(X, scale, B, input_mean, input_var, prefix="input_")
    for name in ("scale", "B"):
        check_same_dtype(given, name, "X")
    return _of_mode(given, epsilon, momentum, training_mode)


def batch_normalization_15(
    X: ArrayLike,
    scale: ArrayLike,
    B: ArrayLike,
    input_mean: ArrayLike,
    input_var: ArrayLike,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array | tuple[Array, ...]:
    """BatchNormalization of opset 15 and later.

    Parameters
    ----------
    X : array_like of float16, float32, float64 or bfloat16 (of the package ml_dtypes)
        Of shape (N, C, D1, ..., Dn); or (N,), with C = 1.
    scale, B : array_like of these types, both of one, of shape (C,)
    input_mean, input_var : array_like of these types, both of one, of shape (C,)
    epsilon : float, default 1e-5
        Added to the variance: finite, at least 0.
    momentum : float, default 0.9
        Weight of the old running statistics, from 0 to 1.
    training_mode : 0 or 1, default 0
        With 1, X is normalized with its own mean and variance.

    Returns
    -------
    Y : ndarray
        Of X's shape, type and memory order. In training the first of a tuple, and so on:
    running_mean, running_var : ndarray
        The new running statistics, of input_mean's type.

    Raises
    ------
    ValueError
        A shape does not fit, or an attribute is out of its range.
    TypeError
        A type is none of these, or types differ that have to be the same.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> X = np.float16([[1, 10], [3, 30]])
    >>> scale, B = np.float64([[1, 2], [0, 1]])
    >>> mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
    >>> told = {"epsilon": 0, "momentum": 0.5, "training_mode": 1}
    >>> for each in bn.onnx.batch_normalization_15(X, scale, B, mean, var, **told):
    ...     print(each, each.dtype)
    [[-1. -1.]
     [ 1.  3.]] float16
    [ 1. 10.] float32
    [ 1.  50.5] float32
    """
    return _of_mode(inputs(X, scale, B, input_mean, input_var, prefix="input_"), epsilon, momentum, training_mode)


def _of_outputs(
    given: dict[str, Array], epsilon: float, momentum: float, outputs: int, least_rank: int, spatial: bool
) -> Array | tuple[Array, ...]:
    """A call of opsets 7 and 9."""
    if given["X"].dtype.name == "bfloat16":
        raise TypeError("X has dtype bfloat16, expected float16, float32 or float64: bfloat16 came with opset 14")
    for name in given:
        check_same_dtype(given, name, "X")
    if given["X"].ndim < least_rank:
        raise ValueError(f"X has shape {given['X'].shape}, expected (N, C, ...)")
    results = computed(given, epsilon, momentum, choice(outputs, "outputs", (1, 5)) == 5, spatial)
    if isinstance(results, Results):
        saved = (cast(each, results.y.dtype) for each in (results.mean, results.var))
        return *results[:3], *saved
    return results


def _of_mode(given: dict[str, Array], epsilon: float, momentum: float, training_mode: int) -> Array | tuple[Array, ...]:
    """A call of opsets 14 and 15."""
    results = computed(given, epsilon, momentum, choice(training_mode, "training_mode", (0, 1)) == 1, True)
    return results[:3] if isinstance(results, Results) else results
