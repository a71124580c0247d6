# SPDX-License-Identifier: Apache-2.0
"""The operators of batchnorm-torch refuse what is wrong in a sentence, and then have written nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from torch_operators import Case, arguments, bn_ops, bt, by_python, torch

WRONG = [
    ({"x": torch.ones(4, 3, dtype=torch.int32)}, "x is of a dtype that is none of float32, float64, float16 and"),
    ({"x": torch.ones(4)}, "x has 1 dimensions, expected at least 2"),
    ({"x": torch.ones(1, 3)}, "x has 3 elements, expected more than one per channel"),
    ({"x": torch.ones(0, 3)}, "x has 0 elements, expected more than one per channel"),
    ({"x": torch.ones(4, 3, 2)[:, :, ::2].expand(4, 3, 5)}, "stride"),
    ({"x": torch.ones(8, 3)[::2]}, "x has gaps in memory"),
    ({"weight": torch.ones(4)}, r"weight is not of shape \(3,\)"),
    ({"bias": torch.ones(3, 1)}, r"bias is not of shape \(3,\)"),
    ({"running_var": torch.ones(6)[::2]}, "running_var has gaps in memory"),
    ({"weight": torch.ones(3).double()}, "weight is of another dtype than x"),
    ({"bias": torch.ones(3).bfloat16()}, "bias is of another dtype than x"),
    ({"running_mean": None}, "running_mean is NULL; expected both of a pair"),
    ({"eps": -1.0}, "eps is -1; expected"),
    ({"momentum": 2.0}, "momentum is 2; expected"),
    ({"num_batches_tracked": torch.ones(3, dtype=torch.int64)}, "num_batches_tracked is not a single number of int64"),
    ({"num_batches_tracked": torch.tensor(1.0)}, "num_batches_tracked is not a single number of int64"),
    ({"running_mean": "x"}, "running_mean.*overlap|overlap.*running_mean"),
]


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_is_refused_is_told_and_nothing_is_written(wrong: dict[str, Any], told: str, activated: bool) -> None:
    case = Case(1, (4, 3), torch.float32)
    given = arguments(case, activated) | wrong
    if wrong == {"running_mean": "x"}:
        given["running_mean"] = case.x.view(-1)[:3]
    before = copy.deepcopy(given)
    call = bn_ops.forward_activated if activated else bn_ops.forward_training
    with pytest.raises(RuntimeError, match=told):
        call(**given)
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, before[name]), name


def test_what_is_refused_going_back() -> None:
    case = Case(1, (4, 3), torch.float32)
    _, statistics = bn_ops.forward_training(**arguments(case))
    right = [case.dy, case.x, case.weight, case.bias, statistics]
    for place, value, told in (
        (0, case.dy.double(), "dy is of another dtype than x"),
        (0, case.dy[:2], "dy is of another shape than x"),
        (4, statistics[:, :2], "statistics are none of a forward call with this x"),
        (4, statistics.float(), "statistics are none of a forward call with this x"),
        (2, case.weight[:2], r"weight is not of shape \(3,\)"),
    ):
        with pytest.raises(RuntimeError, match=told):
            bn_ops.backward(*right[:place], value, *right[place + 1 :])
    with pytest.raises(RuntimeError, match="activation is 6, expected 0 to 5"):
        bn_ops.backward_activated(*right[:4], None, statistics, 6, 0.01, 0.0, 6.0, False)
    zero = torch.tensor([1.0, 0.0, 1.0])
    with pytest.raises(RuntimeError, match="gamma.* is 0"):
        bn_ops.backward_activated(case.dy, case.x, zero, case.bias, None, statistics, 2, 0.5, 0.0, 6.0, True)


def test_errors_of_batch_norm_are_the_python_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    told = []
    for by in ("operators", "Python"):
        if by == "Python":
            by_python(monkeypatch)
        with pytest.raises(ValueError, match="eps") as error:
            bt.functional.batch_norm(torch.ones(4, 3), None, None, training=True, eps=-1)
        told.append(str(error.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", [bt.BatchNorm2d, bt.BatchNormAct2d, bt.InPlaceABN])
def test_parameters_on_another_device_are_an_error(kind: Any) -> None:
    """PyTorch takes the function that only knows shapes for the operator then, and its results have no numbers."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        kind(4, device="meta")(torch.randn(8, 4, 6, 6))
