# SPDX-License-Identifier: Apache-2.0
"""The library's variants: one call of the Python package each, with outputs that exist."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import batchnorm as bn

from harness.problem import EPS, MOMENTUM
from harness.system import Trial
from harness.timing import repeated
from harness.variants import Operands, Variant
from harness.workloads import Operation

from . import OURS


class OursVariants:
    """Keywords name the operations that are fused."""

    name = OURS

    def __init__(self, threads: int) -> None:
        bn.set_num_threads(threads)

    def variant(self, operands: Operands, operation: Operation, variant: Variant) -> Trial:
        o = operands
        x, dy, y, dx, z, dz = (flat.reshape(o.shape) for flat in (o.x, o.dy, o.y, o.dx, o.residual, o.dresidual))
        common: dict[str, Any] = {"axis": o.axis}
        if o.element == "bfloat16":
            common["dtype"] = "bfloat16"
        choices: dict[Variant, dict[str, Any]] = {
            "plain": {},
            "relu": {"activation": "relu"},
            "add + relu": {"activation": "relu", "residual": z},
            "silu": {"activation": "silu"},
            "masked": {"weights": o.mask, "masked": "zero"},
        }
        told = choices[variant]
        affine, statistics = (o.gamma, o.beta), {"running_mean": o.running_mean, "running_var": o.running_var}
        forward = {"eps": EPS, "out": y, **common, **told}
        call: Callable[[], object]
        if operation == "training":
            call = partial(bn.forward_training, x, *affine, **statistics, momentum=MOMENTUM, **forward)
        elif operation == "inference":
            call = partial(bn.forward_inference, x, *affine, **statistics, **forward)
        else:
            _, saved = bn.forward_training(x, *affine, **forward)
            outputs: dict[str, Any] = {"out": dx, "residual_out": dz} if "residual" in told else {"out": dx}
            call = partial(bn.backward, dy, x, saved, **outputs, **common)
        return Trial(repeated(call), lambda: o.dx if operation == "backward" else o.y)
