# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F405
"""Batch normalization for NumPy arrays, forward and backward, exact and fast.

>>> import numpy as np
>>> import batchnorm as bn
>>> layer = bn.BatchNorm2d(3)
>>> y = layer(np.zeros((8, 3, 5, 5), np.float32))
>>> dx = layer.backward(np.ones_like(y))
>>> print(dx.shape, layer.grad_beta)
(8, 3, 5, 5) [200. 200. 200.]

The docstrings of the modules explain them: help(bn.functional), help(bn.functional.steps).

- `functional` has the calls as functions, their formulas, and the rules by which arrays are copied.
- `layers` has the layers, and the recalibration of their running statistics.
- `settings` has the objects that calls and layers take beside plain arguments: activations, running policies, sources
  of statistics, groups.
- `statistics` has the moments of data of any size.
- `deploy` folds a layer into its neighbours.
- `interop` reads and writes the states and files of other frameworks. `keras` and `onnx` stand in it, too: Keras's
  layer, and ONNX's operator.
"""

from importlib import import_module as _import_module

from ._version import __version__

TYPE_CHECKING = False  # as in typing, whose import would take longer than all the rest here
if TYPE_CHECKING:
    from ._names import *  # noqa: F403
    from .interop import keras as keras
    from .interop import onnx as onnx

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Blend",
    "Clip",
    "Conditional",
    "Folded",
    "FrameworkState",
    "FrozenBatchNorm2d",
    "Ghost",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LeakyReLU",
    "MicroBatches",
    "Moments",
    "Outcome",
    "Renorm",
    "Running",
    "SavedStatistics",
    "ScaleShift",
    "Segments",
    "Split",
    "StateError",
    "Sums",
    "Updated",
    "__version__",
    "backward",
    "backward_apply",
    "backward_reduce",
    "batch_norm",
    "double_backward",
    "fold_conv",
    "fold_into_conv",
    "fold_into_linear",
    "fold_linear",
    "forward_inference",
    "forward_training",
    "from_state",
    "frozen_statistics",
    "get_num_threads",
    "inverse_std",
    "isa",
    "jvp",
    "merge_batch_norms",
    "merge_moments",
    "moments",
    "normalize",
    "read_state",
    "recalibrate",
    "renorm_limits",
    "scale_shift",
    "set_num_threads",
    "to_state",
    "update_running",
    "write_state",
]


# Public modules, some by a shorter name than their place.
_MODULES = {
    **{room: room for room in ("deploy", "functional", "interop", "layers", "settings", "statistics")},
    "keras": "interop.keras",
    "onnx": "interop.onnx",
}

if not TYPE_CHECKING:  # which would take any name for one of the package's

    def __getattr__(name: str) -> object:
        """The first use of a name, or of a public module, loads all of them."""
        if name not in __all__ and name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _load()
        return globals().get(name) or _import_module(f"{__name__}.{_MODULES.get(name, name)}")


def _load() -> None:
    """Threads queue for one module, which imports all others. Imported from several ends at once, one of them could see
    another's unfinished module before Python 3.12, and NumPy's parts in all versions.
    """
    _import_module("numpy")
    names = _import_module(f"{__name__}._names")
    for each in set(__all__) - globals().keys():  # which may have what somebody has put there
        globals()[each] = getattr(names, each)


def __dir__() -> list[str]:
    """The names above, and the public modules."""
    return sorted({*__all__, *_MODULES})
