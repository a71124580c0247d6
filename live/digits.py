# SPDX-License-Identifier: Apache-2.0
"""digits.py FILE: scikit-learn's 1,797 images of handwritten digits as bytes: all labels, then all pixels, 0 to 16."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def digits() -> bytes:
    images, labels = load_digits(return_X_y=True)
    return labels.astype(np.uint8).tobytes() + images.astype(np.uint8).tobytes()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(digits())
