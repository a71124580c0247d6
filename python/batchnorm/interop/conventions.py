# SPDX-License-Identifier: Apache-2.0
"""The table of conventions: a line for each framework, held to the formulas of frameworks by tests."""

from __future__ import annotations

from typing import Any, Literal

from .convention import AFFINE, COUNT, FACTOR, RUNNING, Convention

Framework = Literal[
    "pytorch",
    "keras",
    "flax",
    "nnx",
    "onnx",
    "mlx",
    "tensorflow",
    "caffe",
    "caffe2",
    "cudnn",
    "cudnn_saved",
    "darknet",
    "mxnet",
    "gluon",
    "dlib",
    "flux",
    "lux",
]


def convention_of(framework: Any) -> Convention:
    """The convention of the framework of this name."""
    for convention in CONVENTIONS:
        if convention.framework == framework:
            return convention
    names = ", ".join(repr(convention.framework) for convention in CONVENTIONS)
    raise ValueError(f"framework is {framework!r}, expected one of {names}")


_PYTORCH = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_NNX = {"gamma": "scale", "beta": "bias", "running_mean": "mean", "running_var": "var"}
_KERAS = {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_KERAS_FLAGS = {"scale": ("gamma",), "center": ("beta",)}
_CUDNN = {"gamma": "bnScale", "beta": "bnBias"}
_JULIA_FLAGS = {"affine": AFFINE, "track_stats": RUNNING}
_HEADS = "arg:", "aux:"
_FLAX_FLAGS = {"use_scale": ("gamma",), "use_bias": ("beta",)}

CONVENTIONS = (
    Convention(
        "pytorch",
        {**_PYTORCH, COUNT: COUNT},
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=1,
        eps_name="eps",
        sense="new",
        separator=".",
        flags={"affine": ("gamma",), "bias": ("beta",), "track_running_stats": (*RUNNING, COUNT)},
        beta_needs_gamma=True,
        takes_num_features=True,
        takes_cumulative=True,
    ),
    Convention(
        "keras",
        _KERAS,
        eps=1e-3,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags=_KERAS_FLAGS,
        takes_axis=True,
    ),
    Convention(
        "flax",
        {name: f"{'params' if name in AFFINE else 'batch_stats'}/{key}" for name, key in _NNX.items()},
        eps=1e-5,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags=_FLAX_FLAGS,
        takes_axis=True,
        takes_axes=True,
    ),
    Convention(
        "nnx",
        _NNX,
        eps=1e-5,
        momentum=0.99,
        unbiased=False,
        axis=-1,
        flags=_FLAX_FLAGS,
        takes_num_features=True,
        takes_axis=True,
    ),
    Convention(
        "onnx",  # the inputs of the operator since opset 14
        {"gamma": "scale", "beta": "B", "running_mean": "input_mean", "running_var": "input_var"},
        eps=1e-5,
        momentum=0.9,
        unbiased=False,
        axis=1,
        separator=".",
    ),
    Convention(
        "mlx",
        _PYTORCH,
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=-1,
        eps_name="eps",
        sense="new",
        separator=".",
        flags={"affine": AFFINE, "track_running_stats": RUNNING},
        takes_num_features=True,
        takes_zero_eps=False,
    ),
    Convention(
        "tensorflow",  # 1; a fused layer, as most are, keeps the unbiased variance
        _KERAS,
        eps=1e-3,
        momentum=0.99,
        unbiased=True,
        axis=-1,
        momentum_names=("momentum", "decay"),
        flags=_KERAS_FLAGS,
        takes_axis=True,
    ),
    Convention(
        "caffe",  # blobs of a BatchNorm layer, and of the Scale layer after it
        {"gamma": "scale", "beta": "bias", "running_mean": "mean", "running_var": "variance", FACTOR: FACTOR},
        eps=1e-5,
        momentum=0.999,
        unbiased=True,
        axis=1,
        eps_name="eps",
        momentum_names=("moving_average_fraction",),
        flags={"scale": ("gamma",), "bias_term": ("beta",)},
        has_factor=True,
    ),
    Convention(
        "caffe2",  # "riv" says inverse, and is the variance
        {"gamma": "s", "beta": "b", "running_mean": "rm", "running_var": "riv"},
        eps=1e-5,
        momentum=0.9,
        unbiased=True,
        axis=1,
        separator="_",
        joins=True,
    ),
    Convention(
        "cudnn",
        {**_CUDNN, "running_mean": "resultRunningMean", "running_var": "resultRunningVariance"},
        eps=1e-5,
        momentum=0.1,  # which is told at each call there
        unbiased=True,
        axis=1,
        momentum_names=("exponentialAverageFactor",),
        sense="new",
    ),
    Convention(
        "cudnn_saved",  # the statistics of one batch
        {**_CUDNN, "running_mean": "resultSaveMean", "running_var": "resultSaveInvVariance"},
        eps=1e-5,
        momentum=0.1,  # which is told at each call there
        unbiased=False,
        axis=1,
        momentum_names=("exponentialAverageFactor",),
        sense="new",
        spread="inverse",
    ),
    Convention(
        "darknet",
        {"gamma": "scales", "beta": "biases", "running_mean": "rolling_mean", "running_var": "rolling_variance"},
        eps=1e-6,
        momentum=0.99,
        unbiased=True,
        axis=1,
        eps_name="eps",
        spread="outside",
        moves_eps="eps_under_root",
    ),
    Convention(
        "mxnet",  # the operator, which a symbol has
        {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_var"},
        eps=1e-3,
        momentum=0.9,
        unbiased=False,
        axis=1,
        eps_name="eps",
        separator="_",
        takes_axis=True,
        joins=True,
        heads=_HEADS,
        fixed_gamma=("fix_gamma", True, True),
    ),
    Convention(
        "gluon",  # the layer
        {"gamma": "gamma", "beta": "beta", "running_mean": "running_mean", "running_var": "running_var"},
        eps=1e-5,
        momentum=0.9,
        unbiased=False,
        axis=1,
        separator="_",
        takes_axis=True,
        joins=True,
        heads=_HEADS,
        fixed_gamma=("scale", False, True),
    ),
    Convention(
        "dlib",
        {"gamma": "gamma", "beta": "beta", "running_mean": "running_means", "running_var": "running_variances"},
        eps=1e-4,
        momentum=100,
        unbiased=True,
        axis=1,
        eps_name="eps",
        momentum_names=("running_stats_window_size",),
        sense="window",
    ),
    Convention(
        "flux",  # axes of Julia in reverse: the channels are at 1
        {"gamma": "γ", "beta": "β", "running_mean": "μ", "running_var": "σ²"},
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=1,
        eps_name="eps",
        sense="new",
        separator=".",
        flags=_JULIA_FLAGS,
        aliases={"\u00b5": "μ"},  # the sign of micro, which Julia takes for the letter
        passed_over=("affine", "track_stats", "active", "chs"),
    ),
    Convention(
        "lux",  # of parameters and states
        {"gamma": "scale", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"},
        eps=1e-5,
        momentum=0.1,
        unbiased=True,
        axis=1,
        sense="new",
        separator=".",
        flags=_JULIA_FLAGS,
        passed_over=("training",),
    ),
)
