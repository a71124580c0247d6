# SPDX-License-Identifier: Apache-2.0
"""Keras's BatchNormalization, trained by this library on the CPU. It needs Keras 3.4, over PyTorch, JAX or NumPy.

::

    import keras
    from batchnorm.keras import BatchNormalization

    model = keras.Sequential([keras.layers.Conv2D(8, 3), BatchNormalization(), keras.layers.ReLU()])

The layer is a subclass of Keras's own, with its arguments, its weights in the same order, and its config. For NumPy
arrays without Keras there is `batchnorm.interop.keras`.
"""

from . import require  # isort: skip - before all that imports keras
from .layer import BatchNormalization

__all__ = ["BatchNormalization"]

del require
