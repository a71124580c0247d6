# SPDX-License-Identifier: Apache-2.0
"""Keras, of a version that this package works with, over a back end that it works with."""

from __future__ import annotations

import importlib
from typing import Any

OLDEST = (3, 4)
BACKENDS = "jax", "numpy", "torch"


def check(version: str, backend: str) -> None:
    """ImportError if this is the version of a Keras that is too old, or a back end that is none of those."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise ImportError(f"batchnorm.keras works with Keras {least} and newer, but this is {version}")
    if backend not in BACKENDS:
        raise ImportError(
            f"batchnorm.keras works with Keras over {', '.join(BACKENDS)}, but this is over {backend}: set "
            "KERAS_BACKEND before Keras is imported, or take keras.layers.BatchNormalization, which has these weights"
        )


def on_backend() -> Any:
    """The module that trains with the tensors of the back end."""
    return importlib.import_module(f"{__package__}.on_{keras.backend.backend()}")


try:
    import keras
except ImportError as error:
    raise ImportError(
        f"batchnorm.keras needs Keras, which cannot be imported: {error} (KERAS_BACKEND, without which it takes "
        "TensorFlow, may be jax, numpy or torch; a layer for arrays that needs no Keras is in batchnorm.interop.keras)"
    ) from error

check(keras.__version__, keras.backend.backend())
