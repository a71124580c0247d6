# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's StandardScaler by this library, exact for data in pieces and far from 0. It needs scikit-learn 1.6.

>>> import numpy as np
>>> from batchnorm.sklearn import BatchNormScaler
>>> scaler = BatchNormScaler()
>>> for piece in np.array([[1.0, 10], [3, 10], [5, 40], [7, 40]]).reshape(2, 2, 2):
...     scaler = scaler.partial_fit(piece)
>>> print(scaler.mean_, scaler.n_samples_seen_)
[ 4. 25.] 4
"""

from . import require  # isort: skip - before all that imports scikit-learn
from .scaler import BatchNormScaler

__all__ = ["BatchNormScaler"]

del require
