# SPDX-License-Identifier: Apache-2.0
"""Batch norms of a model as those of this package, and back.

A module's class is exchanged, and the module stays: its parameters, which an optimizer may have, its hooks, its place
in the model, its mode.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from .layers import KINDS

Model = TypeVar("Model", bound=torch.nn.Module)

_OURS: dict[type, type] = {getattr(torch.nn, kind.__name__): kind for kind in KINDS}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def convert(model: Model, *, back: bool = False, inplace: bool = True) -> Model:
    """Has all batch norms of a model train by this library.

    Only layers of exactly PyTorch's classes (BatchNorm1d, BatchNorm2d, BatchNorm3d and the lazy ones) are converted,
    so that the forward() of a subclass stays, and SyncBatchNorm as well.

    Parameters
    ----------
    model : Module
        It may be a batch norm itself.
    back : bool, default False
        The other way: from the classes of this package to PyTorch's. Tools that look for exactly these classes need
        it before: torch.fx, fusing for quantization, torch.jit.script.
    inplace : bool, default True
        False: a deep copy is converted.

    Returns
    -------
    Module
        The model, or the copy.
    """
    if not inplace:
        model = copy.deepcopy(model)
    _exchange(model, back)
    return model


@contextmanager
def converted(model: Model, *, back: bool = False) -> Iterator[Model]:
    """convert() for as long as a `with` block; layers that were as they should be before it stay so."""
    changed = _exchange(model, back)
    try:
        yield model
    finally:
        for module in changed:
            kind = (_OURS if back else _THEIRS).get(type(module))
            if kind is not None:
                module.__class__ = kind


def _exchange(model: torch.nn.Module, back: bool) -> list[torch.nn.Module]:
    """Those whose class was exchanged."""
    kinds = _THEIRS if back else _OURS
    changed = [module for module in model.modules() if type(module) in kinds]
    for module in changed:
        module.__class__ = kinds[type(module)]
    return changed
