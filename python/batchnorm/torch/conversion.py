# SPDX-License-Identifier: Apache-2.0
"""Batch norms of a model as those of this package, and back.

A module's class is exchanged, and the module stays: its parameters, which an optimizer may have, its hooks, its place
in the model, its mode.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from .layers import KINDS
from .synchronized_layer import SyncBatchNorm

Model = TypeVar("Model", bound=torch.nn.Module)
Exchanged = tuple[torch.nn.Module, type, type]

_OURS: dict[type, type] = {getattr(torch.nn, kind.__name__): kind for kind in KINDS}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_SYNCHRONIZED = torch.nn.SyncBatchNorm, SyncBatchNorm


def convert(
    model: Model,
    *,
    back: bool = False,
    inplace: bool = True,
    sync: bool = False,
    process_group: Any = None,
    reproducible: bool = False,
) -> Model:
    """Has all batch norms of a model train by this library.

    Only layers of exactly PyTorch's classes (BatchNorm1d, BatchNorm2d, BatchNorm3d and the lazy ones) are converted,
    so that the forward() of a subclass stays, and torch.nn.SyncBatchNorm as well, unless `sync` is True.

    Parameters
    ----------
    model : Module
        It may be a batch norm itself.
    back : bool, default False
        The other way: from the classes of this package to PyTorch's. Tools that look for exactly these classes need
        it before: torch.fx, fusing for quantization, torch.jit.script. A SyncBatchNorm becomes what it was made of.
    inplace : bool, default True
        False: a deep copy is converted.
    sync : bool, default False
        True: all of them, those of this package and torch.nn.SyncBatchNorm become a SyncBatchNorm of this package.
    process_group : ProcessGroup, optional
        The group of the new layers, with `sync`. None: all processes, or a layer's own group if it is synchronized
        already.
    reproducible : bool, default False
        As in SyncBatchNorm, with `sync`.

    Returns
    -------
    Module
        The model, or the copy.

    Raises
    ------
    ValueError
        With `sync`, before anything is converted: a layer is lazy and has no channels yet, or is of another class of
        batch norms, whose statistics would stay those of one process; `back` is given as well.
    """
    if sync and back:
        raise ValueError("sync and back are both True, expected one of them")
    if not inplace:
        model = copy.deepcopy(model)
    if sync:
        _synchronize(model, process_group, reproducible)
        return model
    for module, before, now in _exchange(model, back):
        if before is SyncBatchNorm:
            kept = ("process_group",) if now is torch.nn.SyncBatchNorm else ()
            for name in {"process_group", "reproducible", "made_of"}.difference(kept):
                vars(module).pop(name, None)
    return model


@contextmanager
def converted(model: Model, *, back: bool = False) -> Iterator[Model]:
    """convert() for as long as a `with` block; layers that were as they should be before it stay so."""
    changed = _exchange(model, back)
    try:
        yield model
    finally:
        for module, before, meanwhile in changed:
            kind = before if type(module) is meanwhile else (_OURS if back else _THEIRS).get(type(module))
            if kind is not None:
                module.__class__ = kind


def _exchange(model: torch.nn.Module, back: bool) -> list[Exchanged]:
    """Those whose class was exchanged, with the classes."""
    kinds = _THEIRS if back else _OURS
    changed = []
    for module in model.modules():
        before = type(module)
        meanwhile = kinds.get(before) or (_made_of(module) if back and before is SyncBatchNorm else None)
        if meanwhile is not None:
            module.__class__ = meanwhile
            changed.append((module, before, meanwhile))
    return changed


def _made_of(module: torch.nn.Module) -> type:
    """PyTorch's class for a SyncBatchNorm of this package."""
    kind: type = getattr(torch.nn, getattr(module, "made_of", "SyncBatchNorm"))
    return kind


def _synchronize(model: torch.nn.Module, group: Any, reproducible: bool) -> None:
    kinds = {**_OURS, **_THEIRS}
    found = []
    for name, module in model.named_modules():
        kind = type(module)
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            continue
        if kind not in _SYNCHRONIZED and (kind not in kinds or "Lazy" in kind.__name__):
            what = "has no channels yet: call it once" if kind in kinds else "would keep the statistics of one process"
            raise ValueError(f"layer {name!r} is a {kind.__name__}, which {what}")
        found.append(module)
    for module in found:
        if type(module) not in _SYNCHRONIZED:
            module.made_of, module.process_group = type(module).__name__, None
        if group is not None:
            module.process_group = group
        if reproducible:
            module.reproducible = True
        module.__class__ = SyncBatchNorm
