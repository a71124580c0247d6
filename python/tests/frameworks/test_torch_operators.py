# SPDX-License-Identifier: Apache-2.0
"""The operators of batchnorm-torch beside the Python way, whose bits they have to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from torch_operators import Case, bt, by_python, last, same, step, torch

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [(2, 1), (7, 3), (3, 5, 1), (4, 3, 17), (2, 4, 2, 2), (3, 19, 5, 7), (1, 3, 9, 1), (2, 3, 2, 3, 4)]


def swapped(x: Any) -> Any:
    """The last two axes in each other's place in memory."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 2 else x


def sliced(x: Any) -> Any:
    """With gaps between elements."""
    return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]


LAYOUTS: dict[str, Callable[[Any], Any]] = {"C": lambda x: x, "last": last, "swapped": swapped, "gaps": sliced}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_are_those_of_the_python_way(
    shape: tuple[int, ...], dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    for seed in range(4):
        case = Case(seed, shape, dtype, dtype if seed == 3 else None)
        case.x = LAYOUTS[layout](case.x)
        affine, tracking = [(True, True), (True, False), (False, False), (False, True)][seed], seed != 1
        # As it comes from what follows: in x's order, in C order, one number for all, between others.
        between = LAYOUTS[layout](torch.cat([case.dy, case.z], 1))[:, : shape[1]]
        for dy in (LAYOUTS[layout](case.dy), case.dy, torch.ones((), dtype=dtype).expand(shape), between):
            *found, name = step(case, affine, tracking, dy)
            with monkeypatch.context() as there:
                by_python(there)
                *expected, other = step(case, affine, tracking, dy)
            assert other == "EagerBackward"
            assert name == ("EagerBackward" if layout == "gaps" and not case.x.is_contiguous() else "CompiledBackward")
            same(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish", "silu", "identity"])
def test_bits_with_an_activation(activation: str, dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    case = Case(5, (3, 6, 5, 7), dtype)
    case.dy = LAYOUTS[layout](torch.cat([case.z, case.dy], 1))[:, 6:]

    def fused(residual: bool) -> list[Any]:
        layer = bt.BatchNormAct2d(6, activation=activation).to(case.weight.dtype)
        layer.weight.data.copy_(case.weight), layer.bias.data.copy_(case.bias)
        x, z = (LAYOUTS[layout](value).detach().requires_grad_() for value in (case.x, case.z))
        y = layer(x, z if residual else None)
        y.backward(case.dy)
        return [y, x.grad, z.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()]

    for residual in (False, True):
        found = fused(residual)
        with monkeypatch.context() as there:
            by_python(there)
            same(found, fused(residual))


@pytest.mark.parametrize("layout", ["C", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("slope", [0.01, 1])
def test_bits_in_place(slope: float, dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(6, (3, 6, 5, 7), dtype)
    case.dy = LAYOUTS[layout](torch.cat([case.dy, case.z], 1))[:, :6]

    def in_place() -> list[Any]:
        layer = bt.InPlaceABN(6, slope=slope).to(case.weight.dtype)
        layer.weight.data.copy_(case.weight), layer.bias.data.copy_(case.bias)
        leaf = LAYOUTS[layout](case.x).detach().requires_grad_()
        x = leaf * 1
        y = layer(x)
        assert y.data_ptr() == x.data_ptr()
        assert x._version > 0
        kept = y.detach().clone()
        y.backward(case.dy)
        return [kept, leaf.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()]

    found = in_place()
    with monkeypatch.context() as there:
        by_python(there)
        same(found, in_place())
