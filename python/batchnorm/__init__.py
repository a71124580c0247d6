# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for NumPy arrays, forward and backward, exact and fast.

>>> import numpy as np
>>> import batchnorm as bn
>>> layer = bn.BatchNorm2d(3)
>>> y = layer(np.zeros((8, 3, 5, 5), np.float32))
>>> dx = layer.backward(np.ones_like(y))
>>> print(dx.shape, layer.grad_beta)
(8, 3, 5, 5) [200. 200. 200.]

Each module explains its names in its docstring: help(bn.functional), help(bn.functional.steps).

- `functional` has the calls as functions, their formulas, and the rules by which arrays are copied.
- `layers` has the layers, and the recalibration of their running statistics.
- `settings` has the objects that calls and layers take beside plain arguments: activations, running policies, sources
  of statistics, groups.
- `statistics` has the moments of data of any size.
- `deploy` folds a layer into its neighbours.
- `distributed` has a layer whose batch lies in several processes.
- `interop` reads and writes the states and files of other frameworks. `interop.keras` has Keras's layer for NumPy
  arrays, and `onnx`, which stands in it, ONNX's operator.
- `keras` has Keras's layer, trained by this library; it needs Keras 3.
- `sklearn` has scikit-learn's StandardScaler by this library, exact for data in pieces; it needs scikit-learn.
- `torch` has PyTorch's batch norms, trained by this library. It needs PyTorch, which nothing else here does.
- `jax` has batch normalization for JAX's arrays, with derivatives, and layers of flax. It needs JAX.
"""

from __future__ import annotations

from _thread import RLock as _RLock
from importlib import import_module as _import_module

from ._version import __version__ as __version__

# The names of the package by the module that has them; __init__.pyi says the same to type checkers.
_ROOMS = {
    "_core.errors": ["StateError"],
    "_core.structs": ["Outcome"],
    "_core.threads": ["get_num_threads", "isa", "set_num_threads"],
    "deploy": [
        "Folded",
        "ScaleShift",
        "fold_conv",
        "fold_into_conv",
        "fold_into_linear",
        "fold_linear",
        "merge_batch_norms",
        "scale_shift",
    ],
    "functional": [
        "MicroBatches",
        "SavedStatistics",
        "Sums",
        "backward",
        "backward_apply",
        "backward_reduce",
        "batch_norm",
        "double_backward",
        "forward_inference",
        "forward_training",
        "frozen_statistics",
        "jvp",
        "normalize",
    ],
    "interop": ["FrameworkState", "from_state", "read_state", "to_state", "write_state"],
    "layers": [
        "BatchNorm",
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "FrozenBatchNorm2d",
        "LazyBatchNorm1d",
        "LazyBatchNorm2d",
        "LazyBatchNorm3d",
        "recalibrate",
    ],
    "settings": [
        "Blend",
        "Clip",
        "Conditional",
        "Ghost",
        "LeakyReLU",
        "Renorm",
        "Running",
        "Segments",
        "Split",
        "Updated",
        "renorm_limits",
    ],
    "statistics": ["Moments", "inverse_std", "merge_moments", "moments", "update_running"],
}
_PLACES = {name: room for room, names in _ROOMS.items() for name in names}
# Public modules, some by a shorter name than their place.
_MODULES = {
    **{room: room for room in ("deploy", "distributed", "functional", "interop", "layers", "settings", "statistics")},
    "jax": "jax",
    "keras": "keras",
    "onnx": "interop.onnx",
    "sklearn": "sklearn",
    "torch": "torch",
}
# Rooms that need a package of their name, which may be missing.
_GUESTS = "jax", "keras", "sklearn", "torch"
# Imported from several ends at once, one thread could see another's unfinished module before Python 3.12, and NumPy's
# parts in all versions.
_one_at_a_time = _RLock()

__all__ = sorted([*_PLACES, "__version__"])


def __getattr__(name: str) -> object:
    """The first use of a name, or of a public module, loads the module that has it, NumPy and the library."""
    place = _PLACES.get(name) or _MODULES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _one_at_a_time:
        _import_module("numpy")
        try:
            module = _import_module(f"{__name__}.{place}")
        except ImportError as error:
            if name not in _GUESTS:
                raise
            # Nobody who looks at all names (hasattr, help) needs them; `import batchnorm.torch` has the ImportError.
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
    # Somebody may have put another thing there meanwhile.
    return globals().setdefault(name, getattr(module, name) if name in _PLACES else module)


def __dir__() -> list[str]:
    """The names above, and the public modules: torch where PyTorch is installed, and so on."""
    find = _import_module("importlib.util").find_spec
    return sorted({*__all__, *_MODULES}.difference(name for name in _GUESTS if not find(name)))
