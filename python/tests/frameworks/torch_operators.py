# SPDX-License-Identifier: Apache-2.0
"""The operators of batchnorm-torch, random arguments for them, and the Python way beside them."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
batchnorm_torch: Any = pytest.importorskip(
    "batchnorm_torch", reason="batchnorm-torch is not installed: scripts/wheel-torch builds it"
)
bt: Any = pytest.importorskip("batchnorm.torch")
if not bt.operators.THERE:
    pytest.skip("BATCHNORM_TORCH_OPERATORS is 0", allow_module_level=True)
bn_ops = torch.ops.batchnorm


def last(x: Any) -> Any:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


class Case:
    """Random arguments of a layer."""

    def __init__(self, seed: int, shape: tuple[int, ...], dtype: Any, param: Any = None) -> None:
        make = torch.Generator().manual_seed(seed)
        channels, param = shape[1], param or (torch.float32 if dtype.itemsize == 2 else dtype)
        normal = lambda *sizes: torch.randn(sizes, generator=make, dtype=torch.float64)  # noqa: E731
        self.x, self.dy, self.z = (normal(*shape).mul(3).add(1).to(dtype) for _ in range(3))
        self.weight, self.bias = (normal(channels).add(2).to(param) for _ in range(2))
        self.mean, self.var = normal(channels).to(param), normal(channels).exp().to(param)


def by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.operators, "THERE", False)
    for name in ("_forward", "_forward_in_place", "_backward"):
        monkeypatch.setattr(bt.activated_calls, name, None)


def same(ours: Any, theirs: Any) -> None:
    """Bits, strides and dtypes, in any structure."""
    if isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs):
            same(mine, other)
    elif ours is None:
        assert theirs is None
    else:
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert torch.equal(*(each.detach().flatten().contiguous().view(torch.uint8) for each in (ours, theirs)))


def step(case: Case, affine: tuple[bool, bool], tracking: bool, dy: Any) -> list[Any]:
    x = case.x.detach().requires_grad_()
    weight, bias = (
        value.clone().requires_grad_() if there else None for value, there in zip((case.weight, case.bias), affine)
    )
    mean, var = (case.mean.clone(), case.var.clone()) if tracking else (None, None)
    y = bt.functional.batch_norm(x, mean, var, weight, bias, True, 0.3, 1e-3)
    y.backward(dy)
    return [y, x.grad, *(None if each is None else each.grad for each in (weight, bias)), mean, var, y.grad_fn.name()]


def arguments(case: Case, activated: bool = False) -> dict[str, Any]:
    given = {"x": case.x, "weight": case.weight, "bias": case.bias}
    if activated:
        given["residual"] = None
    given |= {"running_mean": case.mean, "running_var": case.var, "num_batches_tracked": torch.tensor(7)}
    given |= {"momentum": 0.1, "eps": 1e-5}
    return given | ({"activation": 1, "slope": 0.01, "low": 0.0, "high": 6.0} if activated else {})
