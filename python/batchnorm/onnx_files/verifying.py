# SPDX-License-Identifier: Apache-2.0
"""Two models compared on random inputs, tensor by tensor.

The outputs alone may say nothing: they may be constant, or all of them behind a ReLU that lets nothing through, so that
any two models agree. So each tensor that a batch norm wrote is compared, and comparisons that show nothing are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._onnx import is_a
from .drawing import draw
from .running import Session

Array = NDArray[Any]


@dataclass
class Verification:
    """The result of verifying a model.

    Attributes
    ----------
    inputs : int
        The number of random inputs.
    errors : dict
        For each tensor, the largest difference over the largest value.
    vacuous : dict
        For tensors whose agreement proves nothing, the reason.
    too_far : dict
        For tensors that differ by more than rounding, the difference.
    """

    inputs: int
    errors: dict[str, float] = field(default_factory=dict)
    vacuous: dict[str, str] = field(default_factory=dict)
    too_far: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        return max(self.errors.values(), default=0.0)


def verify(
    before: Any,
    after: Any,
    tensors: Iterable[str],
    *,
    inputs: int = 3,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Verification:
    """Runs two models on the same random inputs by ONNX Runtime, and compares their tensors.

    Parameters
    ----------
    before, after : onnx.ModelProto
    tensors : iterable of str
        Those to be compared beside the outputs; such as only one of the models has are left out.
    inputs : int, default 3
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs that the model leaves open. A first axis that it leaves open is 2.
    seed : int, default 0

    Raises
    ------
    ValueError
        ONNX Runtime does not take a model, or an input's shape is not known.
    ImportError
        onnxruntime is not installed.
    """
    outputs = [each for each in before.graph.output if not each.type.HasField("sequence_type")]
    both = _made(before) & _made(after)
    names = list(dict.fromkeys(each.name for each in outputs if each.name in both))
    names += sorted((set(tensors) & both) - set(names))
    first, second = Session(before, names), Session(after, names)
    rng, result = np.random.default_rng(seed), Verification(inputs)
    seen: list[dict[str, Array]] = []
    for number in range(max(inputs, 2)):
        given = draw(first.inputs, shapes or {}, rng)
        seen.append(first.run(given))
        if number < inputs:
            found = second.run(given)
            for name in names:
                error = difference(seen[-1][name], found[name])
                result.errors[name] = max(error, result.errors.get(name, 0.0))
    relus = {node.input[0] for node in before.graph.node if is_a(node, "Relu")}
    for name in names:
        why = _vacuous([each[name] for each in seen], name in relus)
        if why:
            result.vacuous[name] = why
        if result.errors[name] > tolerance(seen[0][name].dtype):
            result.too_far[name] = result.errors[name]
    return result


def tolerance(dtype: np.dtype[Any]) -> float:
    """Half of the digits: the rounding of many layers is less, and the effect of a mistake is more."""
    return float(np.sqrt(np.finfo(dtype).eps)) if dtype.kind == "f" else 0.0


def difference(a: Array, b: Array) -> float:
    """The largest one, relative to the largest value of `a`; infinite if the two are not finite in the same places."""
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind != "f":
        return float((a != b).mean()) if a.size else 0.0
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not finite.any():
        return 0.0 if np.array_equal(finite, np.isfinite(b)) else float("inf")
    x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
    largest = float(abs(x).max())
    distance = float(abs(x - y).max())
    return distance / largest if largest else (0.0 if distance == 0 else float("inf"))


def _vacuous(values: list[Array], before_relu: bool) -> str:
    """The reason why it proves nothing that a tensor is the same in both models; empty if it proves something."""
    x = values[0]
    if not x.size:
        return "is empty"
    if x.dtype.kind == "f" and not np.isfinite(x).any():
        return "is not finite"
    if not x.any():
        return "is 0 everywhere"
    most = max(difference(x, other) for other in values[1:])
    if most <= (8 * float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 0):
        return "does not depend on the input"
    if before_relu and x.dtype.kind == "f" and all((each <= 0).all() for each in values):
        return "goes into a Relu that lets nothing of it through"
    return ""


def _made(model: Any) -> set[str]:
    return {name for node in model.graph.node for name in node.output if name}
