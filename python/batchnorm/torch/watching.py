# SPDX-License-Identifier: Apache-2.0
"""Calls that are not only computed: somebody makes a graph of them, or another function (torch.func).

PyTorch asks itself these questions, in its dispatcher and in Function.apply().
"""

from __future__ import annotations

from typing import Callable

import torch
from torch.autograd import forward_ad

# A version that lacks a name has no such modes, or is asked in the way that is always right.
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", int)


_transforms: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


def is_watched() -> bool:
    """True while a graph is made of the calls (compile, export, jit.trace, make_fx), or they are counted."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or _modes() > 0


def is_recorded() -> bool:
    """True while a graph is made in which the results of a call would stay for ever (export, jit.trace, make_fx)."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return _modes() > 0 and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def is_transformed() -> bool:
    """True within a transform of torch.func, where tensors may have no memory of their own."""
    return _transforms()


def has_tangents() -> bool:
    """True within forward_ad.dual_level(), where tensors may have tangents."""
    return forward_ad._current_level >= 0


def is_looked_into() -> bool:
    """True if a call has to be of operators that PyTorch knows: also in forward mode, where tensors have tangents."""
    return is_watched() or is_transformed() or has_tangents()
