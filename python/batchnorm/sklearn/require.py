# SPDX-License-Identifier: Apache-2.0
"""scikit-learn, of a version that this package works with."""

from __future__ import annotations

OLDEST = (1, 6)


def check(version: str) -> None:
    """ImportError if this is the version of a scikit-learn that is too old."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise ImportError(f"batchnorm.sklearn works with scikit-learn {least} and newer, but this is {version}")


try:
    import sklearn
except ImportError as error:
    raise ImportError(f"batchnorm.sklearn needs scikit-learn, which cannot be imported: {error}") from error

check(sklearn.__version__)
