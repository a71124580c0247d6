# SPDX-License-Identifier: Apache-2.0
"""PyTorch's variants as models have them: batch norm, then operators that change its output in place."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.system import Trial
from harness.timing import repeated
from harness.variants import Operands, Variant
from harness.workloads import Operation

from .pytorch import PyTorch

Step = Callable[[torch.Tensor], torch.Tensor]


class PyTorchVariants(PyTorch):
    """Forward, of float32 and bfloat16."""

    def variant(self, operands: Operands, operation: Operation, variant: Variant) -> Trial | None:
        o = operands
        if operation == "backward" or o.element == "float16":
            return None
        residual = self.tensor(o, o.residual)
        steps: dict[Variant, tuple[Step, ...]] = {
            "plain": (),
            "relu": (torch.relu_,),
            "add + relu": (residual_added(residual), torch.relu_),
            "silu": (torch.ops.aten.silu_,),
        }
        if variant not in steps:
            return None
        y, normalize, following = self.tensor(o, o.y), self.forward(o, operation == "training"), steps[variant]

        def call() -> None:
            normalize()
            for step in following:
                step(y)

        return Trial(repeated(call), lambda: o.y)


def residual_added(residual: torch.Tensor) -> Step:
    """y += residual."""
    return lambda y: y.add_(residual)
