# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization as Keras has it."""

from .layer import BatchNormalization

__all__ = ["BatchNormalization"]
