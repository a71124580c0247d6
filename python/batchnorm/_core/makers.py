# SPDX-License-Identifier: Apache-2.0
"""The kinds of tensors that built-in functions read, and new ones of these kinds for their results."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from . import records


class NumPy:
    """Arrays."""

    empty_like = staticmethod(np.empty_like)

    @staticmethod
    def vector(count: int, code: int) -> Any:
        """An element per channel, of a bn_dtype."""
        return np.empty(count, records.KINDS[code])


class Torch:
    """Tensors of PyTorch."""

    def __init__(self, torch: Any) -> None:
        self.empty_like, self._empty, self._records = torch.empty_like, torch.empty, torch.is_grad_enabled
        self._traced, self._modes = torch._C._get_tracing_state, getattr(torch._C, "_len_torch_dispatch_stack", int)
        self._dtypes = None, torch.float32, torch.float64, torch.float16, torch.bfloat16
        self._forward_ad = importlib.import_module("torch.autograd.forward_ad")
        # The public function asks for the type of its argument first, in Python.
        public = importlib.import_module("torch.autograd.graph").increment_version
        self._increment = getattr(torch._C, "_increment_version", public)

    def vector(self, count: int, code: int) -> Any:
        return self._empty(count, dtype=self._dtypes[code])

    def admits(self, *tensors: Any) -> bool:
        """True if a function that records no gradient, and reads memory as it is, may have the tensors."""
        if self._forward_ad._current_level >= 0 or self._traced() is not None or self._modes():
            return False
        records = self._records()
        for each in tensors:  # noqa: SIM110 - all() takes twice as long
            if type(each) in TORCH and (each.is_neg() or (records and each.requires_grad)):
                return False
        return True

    def written(self, *tensors: Any) -> None:
        """Tells PyTorch, whose gradients of what was there before would be wrong."""
        given = tuple([each for each in tensors if each is not None])
        try:
            self._increment(given)
        except (RuntimeError, TypeError):  # arrays are among them
            self._increment(tuple(each for each in given if type(each) in TORCH))

    def is_of(self, x: Any, dtype: np.dtype[Any]) -> bool:
        """True if the elements of x are those of an array of this dtype."""
        code = next((code for code, kind in enumerate(records.KINDS) if kind == dtype), 0)
        return x.dtype is self._dtypes[code]


NUMPY = NumPy()
TORCH: dict[type, Torch] = {}  # by the types of its tensors, once one was seen
