# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over the processes of torch.distributed, for tensors of the CPU, which PyTorch's refuses."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from .gathering import Head, are_several
from .layers import Trained
from .synchronized import Synchronized
from .taking import BESIDE, PLAIN
from .watching import is_recorded, is_transformed


class SyncBatchNorm(Trained):
    """torch.nn.SyncBatchNorm for the CPU: the statistics are those of a batch that several processes share.

    Every process calls with its part of the batch, which may have any number of samples, or none. They exchange three
    float64 numbers per channel forward, and two backward, and merge them in the order of their ranks: running
    statistics have the same bits on all processes. Evaluation exchanges nothing, and nor does a process alone.

    Gradients are as with torch.nn.SyncBatchNorm: those of weight and bias are of the own part, which
    DistributedDataParallel averages over the processes like all others. There are none of gradients.

    It has the state of torch.nn.SyncBatchNorm, but is no subclass: DistributedDataParallel refuses these on the CPU.

    Parameters
    ----------
    num_features : int
    eps, momentum, affine, track_running_stats, device, dtype, bias
        As of torch.nn.SyncBatchNorm.
    process_group : ProcessGroup, optional
        Whose back end gathers tensors of the CPU, such as gloo or MPI. None stands for all processes.
    reproducible : bool, default False
        True: the statistics are merged sample by sample, in the order of the ranks and of their samples. So y, the
        gradient of x and the running statistics have the same bits for any number of processes, one of them included,
        and any parts. The processes exchange as much for each sample as they otherwise do for their part.

    Raises
    ------
    ValueError
        In a call, on all processes: they do not agree in channels, dtype, eps, or in what has gradients; one of them
        cannot take its input; or all have one value per channel together.
    RuntimeError
        In a call: the exchange fails, as when another process has ended, or has not come for the group's time-out; or a
        trace or a transform of torch.func has it train. In backward(): a gradient of a gradient is wanted.
    """

    process_group: Any = None
    reproducible = False  # in layers that were converted, too

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        *,
        reproducible: bool = False,
        **named: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **named)
        self.process_group = process_group
        self.reproducible = reproducible

    def extra_repr(self) -> str:
        return super().extra_repr() + (", reproducible=True" if self.reproducible else "")

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncBatchNorm:
        """A copy in the same group."""
        memo[id(self.process_group)] = self.process_group
        made = memo[id(self)] = type(self).__new__(type(self))
        made.__setstate__(copy.deepcopy(self.__dict__, memo))
        return made

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - PyTorch's name for it
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name for it
        if not self.training or not (self.reproducible or are_several(self.process_group)):
            return super().forward(input)
        # torch.compile has it between two graphs.
        call = torch.compiler.disable(self._exchanged) if torch.compiler.is_compiling() else self._exchanged
        y: Tensor = call(input)
        return y

    def _exchanged(self, x: Tensor) -> Tensor:
        if is_recorded() or is_transformed():
            raise RuntimeError("SyncBatchNorm exchanges statistics in training, which no trace and no transform can do")
        refusal = None
        try:
            self._check_input_dim(x)
            self._check(x)
        except (TypeError, ValueError) as error:
            refusal = error
        affine = [each for each in (self.weight, self.bias) if each is not None]
        gradient = 2 if x.requires_grad else int(any(each.requires_grad for each in affine))
        channels = x.shape[1] if x.dim() > 1 else 0
        gradient = gradient if torch.is_grad_enabled() else 0
        head = Head(channels, x.dtype, self.eps, gradient, self.reproducible)
        y: Tensor = Synchronized.apply(x, self.weight, self.bias, self._count, self.process_group, head, refusal)
        return y

    def _check(self, x: Tensor) -> None:
        """An error if this library does not take the input."""
        if type(x) not in PLAIN or x.layout is not torch.strided or x.device.type != "cpu":
            raise TypeError(
                f"input is a {type(x).__name__} of {x.layout} on {x.device}, expected a dense tensor on the CPU"
            )
        if x.dtype not in BESIDE:
            raise TypeError(f"input is of {x.dtype}, expected one of {', '.join(map(str, BESIDE))}")
        if x.shape[1] != self.num_features:
            raise ValueError(f"input has {x.shape[1]} channels, expected {self.num_features}")
        kinds = {}
        for name in ("weight", "bias", "running_mean", "running_var"):
            each = getattr(self, name)
            if each is None:
                continue
            kinds[each.dtype] = name
            if each.shape != (self.num_features,):
                raise ValueError(f"{name} has shape {tuple(each.shape)}, expected ({self.num_features},)")
            if each.device.type != "cpu" or each.dtype not in BESIDE[x.dtype]:
                expected = " or ".join(map(str, BESIDE[x.dtype]))
                raise TypeError(f"{name} is of {each.dtype} on {each.device}, expected {expected} on the CPU")
        if (self.running_mean is None) != (self.running_var is None):
            missing = "running_mean" if self.running_mean is None else "running_var"
            raise ValueError(f"{missing} is None and the other is not, expected both or neither")
        if len(kinds) > 1:
            said = ", ".join(f"{name} is of {kind}" for kind, name in kinds.items())
            raise TypeError(f"{said}, expected one dtype of parameters and running statistics")


SyncBatchNorm.__module__ = __package__
