# SPDX-License-Identifier: Apache-2.0
"""The enums and structures of ``Include/batchnorm.h``, in the same order; a test holds the two together."""

from __future__ import annotations

import ctypes
import enum
from ctypes import POINTER, c_double, c_int, c_int32, c_size_t, c_void_p
from typing import Any

from .public import publish


class DType(enum.IntEnum):
    """Element type of the tensors and of the parameters: ``bn_dtype``."""

    FLOAT32 = 1
    FLOAT64 = 2
    FLOAT16 = 3
    BFLOAT16 = 4


class Status(enum.IntEnum):
    """Outcome of a call: ``bn_status``."""

    OK = 0
    ERROR_NULL = 1
    ERROR_SHAPE = 2
    ERROR_DTYPE = 3
    ERROR_STRUCT_SIZE = 4
    ERROR_OPTION = 5
    ERROR_PAIR = 6
    ERROR_OVERLAP = 7
    ERROR_ALIGNMENT = 8
    ERROR_SINGLE_VALUE = 20
    ERROR_NONFINITE = 21
    ERROR_ENVIRONMENT = 40
    ERROR_MEMORY = 41
    ERROR_NESTED = 42


class Masked(enum.IntEnum):
    """The choice of y at positions of weight 0: ``bn_masked``."""

    NORMALIZE = 0
    ZERO = 1
    KEEP = 2


class Weights(ctypes.Structure):
    """Weights of positions: ``bn_weights``."""

    array: object  # that of the values, to live as long as the structure does

    _fields_ = [
        ("struct_size", c_size_t),
        ("values", c_void_p),
        ("masked", c_int),
        ("reserved", c_int32),
    ]


class Shape(ctypes.Structure):
    """Extents of a call's tensors, distances between their outer slices, weights of positions: ``bn_shape``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("outer", c_size_t),
        ("channels", c_size_t),
        ("inner", c_size_t),
        ("x_stride", c_size_t),
        ("y_stride", c_size_t),
        ("dx_stride", c_size_t),
        ("weights", POINTER(Weights)),
    ]


class Activation(enum.IntEnum):
    """The activation that follows normalization: ``bn_activation``."""

    IDENTITY = 0
    RELU = 1
    LEAKY_RELU = 2
    CLIP = 3
    HARD_SWISH = 4
    SILU = 5


class Epilogue(ctypes.Structure):
    """An activation, and a residual that is added before it: ``bn_epilogue``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("activation", c_int),
        ("from_output", c_int32),
        ("slope", c_double),
        ("low", c_double),
        ("high", c_double),
        ("z", c_void_p),
        ("z_stride", c_size_t),
        ("dz", c_void_p),
        ("dz_stride", c_size_t),
        ("mask", c_void_p),
    ]


class Average(enum.IntEnum):
    """The rule by which a batch weighs in the running statistics: ``bn_average``."""

    EXPONENTIAL = 0
    CUMULATIVE = 1
    WINDOWED = 2
    DEBIASED = 3
    FILLED = 4


class SingleValue(enum.IntEnum):
    """The choice of y for a batch of one value per channel: ``bn_single_value``."""

    ERROR = 0
    RUNNING = 1
    BETA = 2


class Nonfinite(enum.IntEnum):
    """The treatment of a batch whose statistics are not finite: ``bn_nonfinite``."""

    PROPAGATE = 0
    SKIP = 1
    ERROR = 2


@publish
class Outcome(enum.IntEnum):
    """The outcome of a batch: ``bn_outcome``.

    USED
        Normalized with its own statistics, and counted in the running ones.
    EMPTY
        There were no values.
    RUNNING
        One value per channel, normalized with the running statistics, which are constants to the gradient.
    BETA
        One value per channel, normalized to beta.
    NONFINITE
        Normalized with its own statistics, but not counted in the running ones.
    BLENDED
        One value per channel, normalized with what a Blend makes of it and the running statistics, but not counted in
        the running ones.
    """

    USED = 0
    EMPTY = 1
    RUNNING = 2
    BETA = 3
    NONFINITE = 4
    BLENDED = 5


class Running(ctypes.Structure):
    """The policy for running statistics: ``bn_running``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("average", c_int),
        ("single_value", c_int),
        ("nonfinite", c_int),
        ("reserved", c_int32),
        ("num_batches", c_void_p),
        ("new_running_mean", c_void_p),
        ("new_running_var", c_void_p),
        ("new_num_batches", c_void_p),
        ("outcome", c_void_p),
    ]


class SourceKind(enum.IntEnum):
    """The kind of statistics that x is normalized with in training: ``bn_source_kind``."""

    BATCH = 0
    BLEND = 1
    RENORM = 2
    UPDATED = 3


class Source(ctypes.Structure):
    """Another source of the statistics than the batch alone: ``bn_source``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("kind", c_int),
        ("reserved", c_int32),
        ("pseudo_count", c_double),
        ("r_min", c_double),
        ("r_max", c_double),
        ("d_max", c_double),
        ("saved", c_void_p),
    ]


class PerGroup(enum.IntFlag):
    """The arrays that have a row for each group: ``bn_per_group``."""

    STATISTICS = 1
    RUNNING = 2
    PARAMETERS = 4


class Groups(ctypes.Structure):
    """The samples of a batch in groups: ``bn_groups``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("samples", c_size_t),
        ("groups", c_size_t),
        ("index", c_void_p),
        ("interleaved", c_int32),
        ("per_group", c_int32),
        ("averaged", c_int32),
        ("reserved", c_int32),
    ]


class Options(ctypes.Structure):
    """The options of a call: ``bn_options``."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("eps", c_double),
        ("momentum", c_double),
        ("biased_running_var", c_int32),
        ("frozen", c_int32),
        ("param_dtype", c_int),
        ("reserved", c_int32),
        ("epilogue", POINTER(Epilogue)),
        ("running", POINTER(Running)),
        ("source", POINTER(Source)),
        ("groups", POINTER(Groups)),
    ]


def sized(struct: Any) -> Any:
    """The structure, which tells its size from now on."""
    struct.struct_size = ctypes.sizeof(struct)
    return struct
