# SPDX-License-Identifier: Apache-2.0
"""vmap: the batches of a map are more channels of one call, since a channel knows nothing of the others.

B tensors of (N, C, ...) become one of (N, B * C, ...), and B vectors of C elements one of B * C. All derivatives are
functions of channels alone, so that one rule serves them all, and maps within maps.

If only gradients or tangents are mapped, and the statistics are those of a single x, each is a call of its own: x is
not repeated.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor

Dim = Optional[int]


def tensor(value: Tensor | None, dim: Dim, size: int) -> Tensor | None:
    """(N, B * C, ...) of B tensors of (N, C, ...); `dim` is None if one stands for all."""
    if value is None:
        return None
    apart = value.movedim(dim, 1) if dim is not None else value.unsqueeze(1).expand(-1, size, *value.shape[1:])
    return apart.flatten(1, 2)


def vector(value: Tensor | None, dim: Dim, size: int) -> Tensor | None:
    """B * C elements of B vectors of C."""
    if value is None:
        return None
    apart = value.movedim(dim, 0) if dim is not None else value.expand(size, *value.shape)
    return apart.flatten()


def tensor_apart(value: Tensor | None, size: int) -> tuple[Tensor | None, Dim]:
    """B tensors of (N, C, ...), and where B is."""
    return (None, None) if value is None else (value.unflatten(1, (size, -1)), 1)


def vector_apart(value: Tensor | None, size: int) -> tuple[Tensor | None, Dim]:
    return (None, None) if value is None else (value.unflatten(0, (size, -1)), 0)


def each(size: int, dims: tuple[Dim, ...], function: Callable[..., tuple[Any, ...]], *mapped: Any) -> Any:
    """The results of a call for each element of a map, and where the map is in them."""
    rows = [
        function(*(value.select(dim, index) if dim is not None else value for value, dim in zip(mapped, dims)))
        for index in range(size)
    ]
    results = tuple(None if column[0] is None else torch.stack(column) for column in zip(*rows))
    return results, tuple(None if result is None else 0 for result in results)
