# SPDX-License-Identifier: Apache-2.0
"""Batch norms that do not train: their statistics and parameters are constants."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from .layers import BatchNorm2d
from .synchronized_layer import SyncBatchNorm

Model = TypeVar("Model", bound=torch.nn.Module)
_KINDS = torch.nn.BatchNorm2d, BatchNorm2d, torch.nn.SyncBatchNorm, SyncBatchNorm


class FrozenBatchNorm2d(torch.nn.Module):
    """BatchNorm2d whose statistics and parameters are buffers, so that nothing trains it.

    It has the state of torchvision.ops.FrozenBatchNorm2d, and takes that of a BatchNorm2d, without its
    num_batches_tracked. Training and evaluation are the same; x has a gradient. It is PyTorch's own operator.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float, default 1e-5
    device, dtype
        Of the buffers.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((num_features,), float(value), device=device, dtype=dtype))

    @classmethod
    def of(cls, layer: torch.nn.Module) -> FrozenBatchNorm2d:
        """A frozen copy of a BatchNorm2d, or a SyncBatchNorm, that has running statistics.

        Raises ValueError if it has none, and TypeError for another layer.
        """
        _check(layer, "layer")
        if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm3d)):
            raise TypeError(f"layer is of type {type(layer).__name__}, expected one of two dimensions")
        return _frozen(copy.deepcopy(layer))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name for it
        if input.dim() != 4:
            raise ValueError(f"expected 4D input (got {input.dim()}D input)")
        statistics = self.running_mean, self.running_var
        return functional.batch_norm(input, *statistics, self.weight, self.bias, False, 0.0, self.eps)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *told: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *told)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


def freeze(model: Model, *, inplace: bool = True) -> Model:
    """Replaces each BatchNorm2d and SyncBatchNorm of a model, of exactly these classes, by a FrozenBatchNorm2d.

    The layers stay where they are, with their hooks. What was a parameter is a copy, so that an optimizer that has it
    changes nothing: make optimizers afterwards.

    Parameters
    ----------
    model : Module
        It may be a batch norm itself.
    inplace : bool, default True
        False: a deep copy is changed.

    Returns
    -------
    Module
        The model, or the copy.

    Raises
    ------
    ValueError
        A layer has no running statistics. The model is as it was.
    """
    if not inplace:
        model = copy.deepcopy(model)
    layers = [(name, module) for name, module in model.named_modules() if type(module) in _KINDS]
    for name, module in layers:
        _check(module, f"layer {name!r}")
    for _, module in layers:
        _frozen(module)
    return model


def _check(layer: Any, what: str) -> None:
    if not isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
        raise TypeError(f"{what} is of type {type(layer).__name__}, expected a batch norm")
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"{what} has no running statistics, which a frozen one is made of")


def _frozen(layer: Any) -> Any:
    """The layer, as one of the other class."""
    made = FrozenBatchNorm2d(layer.num_features, layer.eps, layer.running_mean.device, layer.running_mean.dtype)
    for name, buffer in made.named_buffers():
        value = getattr(layer, name)
        if value is not None:
            buffer.copy_(value.detach())
    layer._parameters.clear()
    layer._buffers.clear()
    layer._buffers.update(made._buffers)
    for name in ("momentum", "affine", "track_running_stats", "process_group", "made_of", "reproducible"):
        vars(layer).pop(name, None)
    layer.__class__ = FrozenBatchNorm2d
    return layer


FrozenBatchNorm2d.__module__ = __package__
