# SPDX-License-Identifier: Apache-2.0
"""Layers from the states of other frameworks, and states for them.

===================  ============  ===============  ================  ==========  ============  ============
here                 "pytorch"     "keras"          "flax" (linen)    "nnx"       "onnx"        "mlx"
===================  ============  ===============  ================  ==========  ============  ============
gamma                weight        gamma            params/scale      scale       scale         weight
beta                 bias          beta             params/bias       bias        B             bias
running_mean         running_mean  moving_mean      batch_stats/mean  mean        input_mean    running_mean
running_var          running_var   moving_variance  batch_stats/var   var         input_var     running_var
num_batches_tracked  the same
axis                 1             -1, or any       -1, any, several  -1, or any  1             -1
eps                  1e-5          epsilon, 1e-3    epsilon, 1e-5     as flax     as flax       1e-5
momentum             0.1           0.99, of old     0.99, of old      as flax     0.9, of old   0.1
unbiased             yes           no               no                no          no            yes
===================  ============  ===============  ================  ==========  ============  ============

The names of ONNX are those of the operator's inputs since opset 14; what a model calls its arrays is its own affair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _foreign
from ._arrays import kind_of, plain
from ._conventions import AFFINE, ARRAYS, COUNT, RUNNING, Convention, as_prefix, convention_of
from ._layout import Axis, as_axis, dtype_of, parameter_dtype
from ._loading import check_running
from ._options import flag, number
from .layer import BatchNorm


class FrameworkState(NamedTuple):
    """A layer as a framework has it: arrays under its keys, and the arguments of its constructor or operator.

    Examples
    --------
    >>> import batchnorm as bn
    >>> arrays, settings = bn.to_state(bn.BatchNorm(3), "onnx")
    >>> print(list(arrays), settings)
    ['scale', 'B', 'input_mean', 'input_var'] {'momentum': 0.9, 'epsilon': 1e-05}
    """

    arrays: dict[str, NDArray[Any]]
    settings: dict[str, Any]


def from_state(
    state: Mapping[Any, Any],
    framework: str,
    *,
    prefix: str = "",
    axis: Axis | None = None,
    dtype: DTypeLike | None = None,
    unbiased: bool | None = None,
    count: float | None = None,
    **settings: Any,
) -> BatchNorm:
    """A layer that does what a framework's batch normalization with this state does.

    Its arrays are copies. It is in training, as every new layer: call eval() for inference.

    Parameters
    ----------
    state : mapping of names to arrays
        What the framework gives: `module.state_dict()`; `{v.path: v for v in model.variables}` of Keras; `variables` of
        flax.linen; `nnx.state(model)` or its pure dict; `dict(mlx.utils.tree_flatten(model.parameters()))`; for ONNX
        `dict(zip(["scale", "B", "input_mean", "input_var"], initializers))` in the order of the node's inputs. It may
        be nested or flat, with "." or "/" between names, or with tuples of names. Values are whatever NumPy takes for
        an array, and tensors of PyTorch and MLX with gradients or of bfloat16.
    framework : str
        "pytorch", "keras", "flax", "nnx", "onnx" or "mlx".
    prefix : str, default ""
        Where the layer is in a larger state: "layer1.0.bn2", "sequential/batch_normalization"; for flax the path of the
        module within its collections, "BatchNorm_0" or "Block_1/BatchNorm_0".
    axis : int or tuple of int, optional
        The channel axis of x here; 1 for pytorch and onnx and -1 for the others if it is not given.
    dtype : optional
        Of x and y; that of the arrays if it is not given. Arrays are widened to what goes with it, never narrowed.
    unbiased : bool, optional
        Whether running_var is to take the variance over M - 1 or over M; if it is not given, as the framework has it.
    count : float, optional
        M, the values per channel of a training batch, above 1. Where `unbiased` is not as the framework has it,
        running_var is multiplied by (M - 1) / M or M / (M - 1); without `count` it is carried over as it is.
    **settings
        In the framework's own terms and with its defaults: eps or epsilon, momentum in its sense, and the flags
        affine, bias, track_running_stats; scale, center; use_scale, use_bias. Without a flag the layer has the arrays
        that are there; with one, they have to be there or not. num_features, which pytorch, nnx and mlx have, is
        needed for a state without arrays.

    Returns
    -------
    BatchNorm
        gamma or beta is None if it is not in the state. With neither running statistic there are none (pytorch and
        mlx). A missing num_batches_tracked counts as 0.

    Raises
    ------
    ValueError
        The framework is none of these; shapes differ, a mean is not finite, a variance not finite or below -eps; a
        number is out of range, a count no whole number.
    TypeError
        A value is no array of floating point numbers; `dtype` would lose digits; a setting that the framework has not.
    KeyError
        A key is missing, or there is one under the prefix that a layer does not have.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> state = {"gamma": [2.0, 2.0], "beta": [0.0, 1.0], "moving_mean": [5.0, 6.0], "moving_variance": [1.0, 4.0]}
    >>> layer = bn.from_state({"bn1": state}, "keras", prefix="bn1", epsilon=0).eval()
    >>> layer
    BatchNorm(2, axis=-1, eps=0, momentum=0.01, affine=True, track_running_stats=True, unbiased=False, dtype=float64)
    >>> print(layer(np.array([[6.0, 8.0]])))
    [[2. 3.]]
    """
    convention = convention_of(framework)
    eps, momentum = convention.senses(settings)
    found = _foreign.find(state, convention, as_prefix(prefix), settings)
    arrays = {name: _foreign.floats(found[name]) for name in ARRAYS if name in found}
    axis = as_axis(convention.axis if axis is None else axis)
    shape = _foreign.channels(arrays, found, axis, settings.get("num_features"))
    keys = [found[name].key if name in found else "" for name in RUNNING]
    check_running(arrays.get("running_mean"), arrays.get("running_var"), eps, (keys[0], keys[1]))
    batches = _foreign.count(found[COUNT]) if COUNT in found else 0
    of_x, of_parameters = _dtypes(_foreign.common_dtype(arrays), dtype)
    layer = BatchNorm(
        shape if isinstance(axis, tuple) else shape[0],
        axis,
        eps,
        momentum,
        affine=any(name in arrays for name in AFFINE),
        track_running_stats="running_mean" in arrays,
        dtype=of_x,
        unbiased=convention.unbiased if unbiased is None else flag(unbiased, "unbiased"),
        param_dtype=of_parameters,
    )
    factor = _bessel(convention.unbiased, layer.unbiased, count)
    for name in ARRAYS:
        array = arrays[name].astype(of_parameters, order="C") if name in arrays else None
        if array is not None and name == "running_var":
            array = _times(array, factor, found[name].key)
            check_running(None, array, eps, ("", found[name].key))
        setattr(layer, name, array)
    layer.num_batches_tracked = batches
    return layer


def to_state(layer: BatchNorm, framework: str, *, prefix: str = "", count: float | None = None) -> FrameworkState:
    """What from_state() reads: a layer's arrays under a framework's keys, and its settings in the framework's terms.

    Parameters
    ----------
    layer : BatchNorm
    framework : str
        "pytorch", "keras", "flax", "nnx", "onnx" or "mlx".
    prefix : str, default ""
        Stands before each key, as in from_state().
    count : float, optional
        M, the values per channel of a training batch, above 1. Where `layer.unbiased` is not as the framework has it,
        the running variance is multiplied by (M - 1) / M or M / (M - 1); without `count` it is carried over as it is.

    Returns
    -------
    FrameworkState
        (arrays, settings): flat copies in the order gamma, beta, mean, variance, which is that of Keras's set_weights()
        and of ONNX's inputs; and what `torch.nn.BatchNorm2d(**settings)`, Keras's, flax's or MLX's layer or
        `onnx.helper.make_node` takes. ONNX, which needs all arrays, gets ones for no gamma and zeros for no beta.
        They go back by `load_state_dict({key: torch.as_tensor(array) for key, array in arrays.items()})`, Keras's
        `set_weights(list(arrays.values()))`, `flax.traverse_util.unflatten_dict(arrays, sep="/")`, which are a linen
        module's variables, `getattr(module, key).value = jnp.asarray(array)` of nnx, and by position to ONNX, whose
        operator calls the last two mean and var before opset 14.

    Raises
    ------
    ValueError
        The framework has no words for something: another axis, momentum None, an activation, a running policy, a
        source, groups, frozen statistics, one array without another, eps 0 (mlx). An array of the layer does not fit.
    TypeError
        `layer` is no BatchNorm, or an array of it has another dtype than the layer.

    Examples
    --------
    >>> import batchnorm as bn
    >>> state = bn.to_state(bn.BatchNorm2d(2, momentum=0.25), "keras", prefix="bn1")
    >>> print({key: array.tolist() for key, array in state.arrays.items()})
    {'bn1/gamma': [1.0, 1.0], 'bn1/beta': [0.0, 0.0], 'bn1/moving_mean': [0.0, 0.0], 'bn1/moving_variance': [1.0, 1.0]}
    >>> print(state.settings)
    {'axis': 1, 'momentum': 0.75, 'epsilon': 1e-05, 'scale': True, 'center': True}
    """
    convention = convention_of(framework)
    if not isinstance(layer, BatchNorm):
        raise TypeError(f"layer is of type {kind_of(layer)}, expected BatchNorm")
    prefix = as_prefix(prefix)
    settings = _settings(layer, convention)
    factor = _bessel(layer.unbiased, convention.unbiased, count)
    arrays = _arrays(layer, convention)
    if "running_var" in arrays:
        arrays["running_var"] = _times(arrays["running_var"], factor, "running_var")
    for key, names in convention.flags.items():
        settings[key] = names[0] in arrays
    if convention.beta_needs_gamma and settings["bias"] == settings["affine"]:
        del settings["bias"]  # not every PyTorch knows it, and without it affine says as much
    if COUNT in convention.keys and "running_mean" in arrays:
        arrays[COUNT] = np.array(layer.num_batches_tracked, np.int64)
    return FrameworkState({convention.key(name, prefix): array for name, array in arrays.items()}, settings)


def _settings(layer: BatchNorm, convention: Convention) -> dict[str, Any]:
    """Settings but for the flags, if the framework has words for all of them."""
    framework = convention.framework
    for name in ("activation", "running", "source", "groups", "frozen"):
        value = getattr(layer, name)
        if value and value != "identity":
            raise ValueError(f"{name} is {value!r}, which a {framework} layer does not have")
    if convention.takes_axis:
        if isinstance(layer.axis, tuple) and not convention.takes_axes:
            raise ValueError(f"axis is {layer.axis}, expected one axis, as a {framework} layer has")
    elif layer.axis != convention.axis:
        raise ValueError(f"axis is {layer.axis}, expected {convention.axis}, the axis of every {framework} layer")
    eps, momentum = number(layer.eps, "eps"), layer.momentum
    if not eps and not convention.takes_zero_eps:
        raise ValueError(f"eps is 0, expected more than 0, as a {framework} layer has")
    if momentum is not None:
        momentum = number(momentum, "momentum")
        momentum = 1.0 - momentum if convention.is_decay else momentum
    elif not convention.takes_cumulative:
        raise ValueError(f"momentum is None, the cumulative average, which a {framework} layer does not have")
    settings: dict[str, Any] = {"num_features": layer.num_features} if convention.takes_num_features else {}
    settings.update({"axis": layer.axis} if convention.takes_axis else {})
    return {**settings, "momentum": momentum, convention.eps_name: eps}


def _arrays(layer: BatchNorm, convention: Convention) -> dict[str, NDArray[Any]]:
    """Copies of the arrays that a layer of the framework has; no call may have looked at ours yet."""
    given = {name: getattr(layer, name) for name in ARRAYS if getattr(layer, name) is not None}
    shape = layer._channel_shape
    for name, asking in convention.needed(given).items():
        if name not in given and not asking and name in AFFINE:
            given[name] = np.full(shape, name == "gamma", layer.param_dtype)
        elif name not in given:
            beside = f"beside {asking}" if asking else "in every layer"
            raise ValueError(f"{name} is None, which {convention.framework} has {beside}")
    arrays = {}
    for name in ARRAYS:
        if name in given:
            array = plain(given[name], name)
            if array.dtype != layer.param_dtype:
                raise TypeError(f"{name} has dtype {array.dtype}, expected {layer.param_dtype}")
            if array.shape not in (shape, (math.prod(shape),)):
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}: one element per channel")
            arrays[name] = array.reshape(shape).copy()
    return arrays


def _dtypes(of_arrays: np.dtype[Any], dtype: DTypeLike | None) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Those of x and of the parameters: the arrays' own if it goes with that of x, or a wider one that does."""
    if dtype is None:
        return of_arrays, of_arrays
    wanted = dtype_of(dtype, "dtype")
    for each in (wanted, parameter_dtype(wanted)):
        if np.can_cast(of_arrays, each):
            return wanted, each
    raise TypeError(f"dtype is {wanted}, but the arrays are of {of_arrays}: digits would be lost")


def _bessel(is_unbiased: bool, unbiased: bool, count: float | None) -> float:
    """What a variance is multiplied by to become unbiased, or biased, if the number of values is known."""
    if count is None:
        return 1.0
    count = number(count, "count")
    if not 1 < count < math.inf:
        raise ValueError(f"count is {count}, expected a finite number above 1: the values per channel of a batch")
    if bool(is_unbiased) == bool(unbiased):
        return 1.0
    return count / (count - 1) if unbiased else (count - 1) / count


def _times(array: NDArray[Any], factor: float, key: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        result: NDArray[Any] = (array.astype(np.float64) * factor).astype(array.dtype)
    if (np.isinf(result) & ~np.isinf(array)).any():
        raise ValueError(f"{key} times {factor:g}, which makes it unbiased, is beyond {array.dtype}")
    return result
