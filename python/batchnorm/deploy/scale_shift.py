# SPDX-License-Identifier: Apache-2.0
"""Batch norm in inference is one multiplication and one addition per channel: y = scale * x + shift.

::

    scale = gamma / sqrt(running_var + eps)        shift = beta - running_mean * scale

In this form it stands alone where there is no layer for it, it becomes a part of its neighbours
(`batchnorm.deploy.folding`), and two of them in a row become one.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._core.arrays import Doubles, address, doubles, kind_of
from .._core.library import lib
from .._core.options import number, options
from .._core.public import publish
from .._core.rounding import finite, index_of, place, rounded
from .._core.structs import DType
from ..layers.layer import BatchNorm
from ..settings.activations import resolve
from ..settings.groups import rows_of


@publish
class ScaleShift(NamedTuple):
    """y = scale * x + shift: a batch norm in inference.

    The layer itself subtracts the mean from x before it scales. If a mean is large beside its standard deviation,
    scale * x and shift are large beside y, and as many digits are lost, unless they are added in wider numbers than x.

    Attributes
    ----------
    scale, shift : ndarray of float64
        One element per channel. A ScaleShift that a caller makes is checked by the functions that take it.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm1d(2, eps=0).eval()
    >>> layer.running_mean[...], layer.running_var[...] = [1, -3], [4, 1]
    >>> scale, shift = bn.ScaleShift.of(layer)
    >>> x = np.array([[3, -1]], np.float32)
    >>> print(scale * x + shift, layer(x))
    [[1. 2.]] [[1. 2.]]
    """

    scale: Doubles
    shift: Doubles

    @classmethod
    def of(cls, layer: BatchNorm, name: str = "layer") -> ScaleShift:
        """The scale and the shift of a layer in evaluation, also while it is in training.

        Parameters
        ----------
        layer : BatchNorm
        name : str, default "layer"
            The name of the layer in errors.

        Raises
        ------
        ValueError
            No scale and shift can do the same: it has an activation, no running statistics, or parameters or
            running statistics per group. scale_shift() may raise it, too.
        TypeError
            It is no BatchNorm.
        """
        if not isinstance(layer, BatchNorm):
            raise TypeError(f"{name} is of type {kind_of(layer)}, expected BatchNorm")
        if resolve(layer.activation) != resolve(None):
            raise ValueError(
                f"{name} has activation {layer.activation!r}, which is no scale and shift: take a layer without, "
                "and compute the activation apart"
            )
        if any(rows_of(layer.groups)):
            kind = type(layer.groups).__name__
            raise ValueError(
                f"{name} has groups of type {kind}, with parameters or running statistics each, "
                "and no one scale and shift for all samples"
            )
        if layer._running_mean is None or layer._running_var is None:
            raise ValueError(f"{name} has no running statistics: its scale and shift are another for each batch")
        arrays = layer.gamma, layer.beta, layer.running_mean, layer.running_var
        return _of_arrays(*arrays, layer.eps, layer._channel_shape, f"{name}'s ")


def scale_shift(
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    eps: float = 1e-5,
) -> ScaleShift:
    """scale = gamma / sqrt(running_var + eps) and shift = beta - running_mean * scale, computed in float64.

    As in inference, a running_var + eps of 0 gives scale 0, so that y is beta.

    Parameters
    ----------
    gamma, beta : array_like or None
        One element per channel; None stands for 1 and for 0.
    running_mean, running_var : array_like
        One element per channel.
    eps : float, default 1e-5
        Finite, at least 0.

    Returns
    -------
    ScaleShift
        In the shape of running_mean.

    Raises
    ------
    ValueError
        The shapes differ, a number is not finite, `eps` is negative, or running_var + eps is.
    TypeError
        An array is not of real numbers.

    Examples
    --------
    >>> import batchnorm as bn
    >>> form = bn.scale_shift([1, -2], None, running_mean=[5, 3], running_var=[4, 16], eps=0)
    >>> print(form.scale, form.shift)
    [ 0.5 -0.5] [-2.5  1.5]
    """
    return _of_arrays(gamma, beta, running_mean, running_var, eps, np.shape(running_mean), "")


def merge_batch_norms(first: BatchNorm, second: BatchNorm) -> BatchNorm:
    """One layer that does in evaluation what `second` does to the output of `first`.

    It is a copy of `first`, in evaluation, with another gamma and beta.

    Parameters
    ----------
    first, second : BatchNorm
        Of the same channels, axis and dtype, with running statistics.

    Returns
    -------
    BatchNorm
        In the dtypes of `first`. Its gamma and beta are computed in float64 and rounded once.

    Raises
    ------
    ValueError
        They differ in channels or axis, a combined parameter is beyond what its dtype holds, or a layer is one that
        ScaleShift.of() refuses.
    TypeError
        They differ in dtype, or one is no BatchNorm.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> first, second = bn.BatchNorm1d(2, eps=0).eval(), bn.BatchNorm1d(2, eps=0).eval()
    >>> first.running_mean[...], second.running_var[...] = [5, 7], [4, 16]
    >>> merged = bn.merge_batch_norms(first, second)
    >>> x = np.array([[9, -1]], np.float32)
    >>> print(merged.gamma, merged(x), second(first(x)))
    [0.5  0.25] [[ 2. -2.]] [[ 2. -2.]]
    """
    ScaleShift.of(first, "first")
    scale, shift = ScaleShift.of(second, "second")
    if first._channel_shape != second._channel_shape:
        raise ValueError(f"second has {second.num_features} channels, expected {first.num_features}, as first has")
    if _axes(first) != _axes(second):
        raise ValueError(f"second has its channels at axis {second.axis}, expected {first.axis}, as first has")
    if first.dtype != second.dtype:
        raise TypeError(f"second has dtype {second.dtype}, expected {first.dtype}, the dtype of first")
    # The running statistics stay those of the first, which are in the units of x: x is centred with the very mean that
    # was taken of it, before anything is scaled. The second's mean, of numbers about beta, goes into beta.
    gamma, beta = (
        np.full(scale.shape, default) if given is None else np.asarray(given, np.float64).reshape(scale.shape)
        for given, default in ((first._gamma, 1.0), (first._beta, 0.0))
    )
    with np.errstate(all="ignore"):  # rounded() looks at what becomes of it
        gamma, beta = gamma * scale, beta * scale + shift
    gamma, beta = rounded(gamma, first.param_dtype, "gamma"), rounded(beta, first.param_dtype, "beta")
    merged = copy.deepcopy(first).eval()
    merged.affine, merged.gamma, merged.beta = True, gamma, beta
    merged.grad_gamma = merged.grad_beta = merged.grad_residual = None
    return merged


def _axes(layer: BatchNorm) -> tuple[int, ...]:
    return layer.axis if isinstance(layer.axis, tuple) else (layer.axis,)


def _of_arrays(
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    eps: float,
    shape: tuple[int, ...],
    owner: str,
) -> ScaleShift:
    given = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    arrays = {"gamma": np.ones(shape), "beta": np.zeros(shape)}
    for name, value in given.items():
        if value is not None or name not in arrays:
            arrays[name] = doubles(value, owner + name, shape).reshape(shape)  # type: ignore[arg-type]
            finite(arrays[name], owner + name)
    if not shape:
        raise ValueError("running_mean is a single number, expected an array of one element per channel")
    var = arrays["running_var"]
    negative = var + number(eps, "eps") < 0
    if negative.any():
        value = f"{var[index_of(negative)]:g} at {place(negative)}"
        raise ValueError(f"{owner}running_var is {value}, expected at least -eps ({0 - eps:g}): y would be NaN")
    result = ScaleShift(*np.empty((2, *shape)))
    channels, addresses = var.size, (address(array) for array in (*arrays.values(), *result))
    lib.bn_scale_shift(channels, DType.FLOAT64, *addresses, options(eps))
    for name, values in result._asdict().items():
        finite(values, owner + name)
    return result
