# SPDX-License-Identifier: Apache-2.0
"""The kinds of tensors that built-in functions read, and new ones of these kinds for their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import records


class NumPy:
    """Arrays."""

    empty_like = staticmethod(np.empty_like)
    records = staticmethod(bool)  # no gradients

    @staticmethod
    def vector(count: int, code: int) -> Any:
        """An element per channel, of a bn_dtype."""
        return np.empty(count, records.KINDS[code])


class Torch:
    """Tensors of PyTorch."""

    def __init__(self, torch: Any) -> None:
        self.empty_like, self._empty, self.records = torch.empty_like, torch.empty, torch.is_grad_enabled
        self._dtypes = None, torch.float32, torch.float64, torch.float16, torch.bfloat16

    def vector(self, count: int, code: int) -> Any:
        return self._empty(count, dtype=self._dtypes[code])

    @staticmethod
    def require_gradients(*tensors: Any) -> bool:
        """True if a gradient with respect to one of them is asked for, where gradients are recorded."""
        return any(getattr(each, "requires_grad", False) for each in tensors)

    def is_of(self, x: Any, dtype: np.dtype[Any]) -> bool:
        """True if the elements of x are those of an array of this dtype."""
        code = next((code for code, kind in enumerate(records.KINDS) if kind == dtype), 0)
        return x.dtype is self._dtypes[code]


NUMPY = NumPy()
TORCH: dict[type, Torch] = {}  # by the types of its tensors, once one was seen
