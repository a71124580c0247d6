# SPDX-License-Identifier: Apache-2.0
"""Layers from the states of other frameworks, and states for them.

==============  ==================  =================  =================  =============  =======  =======
framework       gamma, beta         running_mean       running_var        momentum       eps      axis
==============  ==================  =================  =================  =============  =======  =======
"pytorch"       weight, bias        running_mean       running_var        0.1, of new    1e-5     1
"keras"         gamma, beta         moving_mean        moving_variance¹   0.99, of old   1e-3     -1, any
"tensorflow"    gamma, beta         moving_mean        moving_variance    0.99, of old   1e-3     -1, any
"flax" (linen)  params/scale, bias  batch_stats/mean   var¹               0.99, of old   1e-5     -1, any
"nnx"           scale, bias         mean               var¹               0.99, of old   1e-5     -1, any
"onnx"          scale, B            input_mean         input_var¹         0.9, of old    1e-5     1
"mlx"           weight, bias        running_mean       running_var        0.1, of new    1e-5     -1
"caffe"         scale, bias         mean²              variance²          0.999, of old  1e-5     1
"caffe2"        s, b                rm                 riv                0.9, of old    1e-5     1
"cudnn"         bnScale, bnBias     resultRunningMean  ...Variance        0.1, of new    1e-5     1
"cudnn_saved"   bnScale, bnBias     resultSaveMean     ...InvVariance¹ ³  0.1, of new    1e-5     1
"darknet"       scales, biases      rolling_mean       rolling_variance   0.99, of old   1e-6 ⁴   1
"mxnet"         gamma, beta         moving_mean        moving_var¹        0.9, of old    1e-3     1, any
"gluon"         gamma, beta         running_mean       running_var¹       0.9, of old    1e-5     1, any
"dlib"          gamma, beta         running_means      running_variances  window of 100  1e-4     1
"flux"          γ, β                μ                  σ²                 0.1, of new    1e-5     1
"lux"           scale, bias         running_mean       running_var        0.1, of new    1e-5     1
==============  ==================  =================  =================  =============  =======  =======

¹ Biased; the others take the variance over M - 1. ² Sums, of which scale_factor, the third blob, makes averages.
³ The inverse of sqrt(variance + eps). ⁴ Added to the root, outside of it; with eps_under_root=True as everywhere.
For ³ and ⁴ the layer has a variance, and an eps under the root, that give the same.

Only flax has several axes as one. PyTorch has num_batches_tracked as well. The names of ONNX are those of the
operator's inputs since opset 14; a model names its arrays as it likes. Caffe's layers have blobs by number: those of
BatchNorm, and of the Scale layer after it. In files of MXNet and Caffe2 "_" stands between the name of
a layer and that of an array, and "arg:" or "aux:" may stand before it. A gamma counts as 1 where fix_gamma is True,
which it is by default of MXNet's operator, or where scale is False in Gluon.

":0" and ".ATTRIBUTES/VARIABLE_VALUE" behind a name are TensorFlow's, and are ignored. The arrays of an optimizer
(gamma/Adam_1) are passed over; an ExponentialMovingAverage beside it is an error, as either could be
meant. Keras 3 numbers its arrays: vars/0 to vars/3, or, told scale=False or center=False, fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core.arrays import kind_of
from .._core.layout import Axis, as_axis
from .._core.options import flag
from .._core.public import publish
from ..layers.layer import BatchNorm
from ..layers.loading import check_running
from . import reading
from .convention import AFFINE, ARRAYS, COUNT, FACTOR, RUNNING, as_prefix
from .conventions import Framework, convention_of
from .from_framework import as_parameter, bessel, divide, drop_fixed_gamma, dtypes_of, take_variance
from .spreads import check_rounded
from .to_framework import arrays_of, as_kept, settings_of, sums


@publish
class FrameworkState(NamedTuple):
    """A layer as a framework has it: arrays under its keys, and the arguments of its constructor or operator.

    Attributes
    ----------
    arrays : dict of str to ndarray
        By the framework's keys, below the prefix if one was given.
    settings : dict of str to object
        By the framework's names, and in its senses.

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
    framework: Framework,
    *,
    prefix: str = "",
    axis: Axis | None = None,
    dtype: DTypeLike | None = None,
    unbiased: bool | None = None,
    count: float | None = None,
    **settings: Any,
) -> BatchNorm:
    """A layer that does what a framework's batch normalization with this state does.

    Its arrays are copies. It is in training mode, as every new layer is: call eval() for inference.

    Parameters
    ----------
    state : mapping of names to arrays
        From the framework: `module.state_dict()`; `{v.path: v for v in model.variables}` of Keras; `variables` of
        flax.linen; `nnx.state(model)` or its pure dict; `dict(mlx.utils.tree_flatten(model.parameters()))`; for ONNX
        `dict(zip(["scale", "B", "input_mean", "input_var"], initializers))` in the order of the node's inputs. It may
        be nested or flat, with "." or "/" between names, or with tuples of names. Values are whatever NumPy takes for
        an array, and tensors of PyTorch and MLX with gradients or of bfloat16.
    framework : str
        One of the table of this module: "pytorch", "keras", "flax", "onnx" and so on.
    prefix : str, default ""
        Where the layer is in a larger state: "layer1.0.bn2", "sequential/batch_normalization"; for flax the path of the
        module within its collections, "BatchNorm_0" or "Block_1/BatchNorm_0".
    axis : int or tuple of int, optional
        The channel axis of x here; by default as the framework has it.
    dtype : optional
        The dtype of x and y; by default that of the arrays. Arrays are widened to fit it, never narrowed.
    unbiased : bool, optional
        True if running_var is to take the variance over M - 1, False if over M; by default as the framework has it.
    count : float, optional
        M, the values per channel of a training batch, above 1. Where `unbiased` is not as the framework has it,
        running_var is multiplied by (M - 1) / M or M / (M - 1); without `count` it is carried over as it is.
    **settings
        In the framework's own terms and with its defaults: eps or epsilon; momentum in its sense, which is also called
        decay (tensorflow), moving_average_fraction (caffe), exponentialAverageFactor (cudnn) or
        running_stats_window_size (dlib); fix_gamma (mxnet); eps_under_root (darknet, for forks that have it there). And
        the flags affine, bias, track_running_stats; scale, center; use_scale, use_bias; scale, bias_term; affine,
        track_stats. Without a flag the layer has the arrays that are there; with one, they have to be there or not.
        num_features, which pytorch, nnx and mlx have, is needed for a state without arrays.

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
        A value is no array of floating point numbers; `dtype` would lose digits; the framework does not have a setting.
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
    found = reading.find(state, convention, as_prefix(prefix), settings)
    arrays = {name: reading.floats(found[name]) for name in ARRAYS if name in found}
    axis = as_axis(convention.axis if axis is None else axis)
    shape = reading.channels(arrays, found, axis, settings.get("num_features"))
    batches = reading.count(found[COUNT]) if COUNT in found else 0
    of_x, of_parameters = dtypes_of(reading.common_dtype(arrays, convention.spread != "variance"), dtype)
    is_unbiased = convention.unbiased if unbiased is None else flag(unbiased, "unbiased")
    given = dict(arrays)
    drop_fixed_gamma(arrays, found, convention, settings)
    if convention.has_factor:
        divide(arrays, reading.factor(found[FACTOR]), found)
    factor = bessel(convention.unbiased, is_unbiased, count)
    if "running_var" in arrays:
        eps = take_variance(arrays, found["running_var"].key, convention, settings, eps, factor)
    layer = BatchNorm(
        shape if isinstance(axis, tuple) else shape[0],
        eps,
        momentum,
        affine=any(name in arrays for name in AFFINE),
        track_running_stats="running_mean" in arrays,
        dtype=of_x,
        axis=axis,
        unbiased=is_unbiased,
        param_dtype=of_parameters,
    )
    for name in ARRAYS:
        array = arrays.get(name)
        if array is not None:
            whose = factor if name == "running_var" else 1.0
            exact, array = array, as_parameter(array, given[name], of_parameters, whose, found[name].key)
            if name == "running_var" and convention.spread != "variance":
                check_rounded(array, exact.astype(np.float64), eps, found[name].key)
        setattr(layer, name, array)
    keys = [found[name].key if name in found else "" for name in RUNNING]
    check_running(layer.running_mean, layer.running_var, eps, (keys[0], keys[1]))
    layer.num_batches_tracked = batches
    return layer


def to_state(layer: BatchNorm, framework: Framework, *, prefix: str = "", count: float | None = None) -> FrameworkState:
    """A state for from_state(): a layer's arrays under a framework's keys, and its settings in the framework's terms.

    Parameters
    ----------
    layer : BatchNorm
    framework : str
        One of the table of this module: "pytorch", "keras", "flax", "onnx" and so on.
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
        The framework cannot express the layer: another axis, momentum None, a momentum that is no window of batches
        (dlib), an activation, a running policy, a source, groups, frozen statistics, one array without another, eps 0
        (mlx), a variance below what its eps is to the root (darknet). An array of the layer does not fit.
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
    settings = settings_of(layer, convention)
    factor = bessel(layer.unbiased, convention.unbiased, count)
    arrays = arrays_of(layer, convention)
    if "running_var" in arrays:
        arrays["running_var"] = as_kept(arrays["running_var"], layer, convention, factor)
    if convention.has_factor:
        arrays.update(sums(arrays, layer))
    for key, names in convention.flags.items():
        settings[key] = names[0] in arrays
    if convention.fixed_gamma:
        name, fixing, _ = convention.fixed_gamma
        settings[name] = fixing if layer._gamma is None else not fixing
    if convention.beta_needs_gamma and settings["bias"] == settings["affine"]:
        del settings["bias"]  # not every PyTorch knows it, and without it affine says as much
    if COUNT in convention.keys and "running_mean" in arrays:
        arrays[COUNT] = np.array(layer.num_batches_tracked, np.int64)
    return FrameworkState({convention.key(name, prefix): array for name, array in arrays.items()}, settings)
