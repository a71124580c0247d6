# SPDX-License-Identifier: Apache-2.0
"""JAX, of a version that this package works with."""

from __future__ import annotations

OLDEST = (0, 10)


def check(version: str) -> None:
    """ImportError if this is the version of a JAX that is too old."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise ImportError(f"batchnorm.jax works with JAX {least} and newer, but this is {version}")


try:
    import jax
except ImportError as error:
    raise ImportError(f"batchnorm.jax needs JAX, which cannot be imported: {error}") from error

check(jax.__version__)
