# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch under PyTorch's differentiation: derivatives by small steps, and beside those of PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from in_torch import torch
from modules import bt, small

pytestmark = pytest.mark.usefixtures("small")
_ = small
func = torch.func
gradcheck, gradgradcheck = torch.autograd.gradcheck, torch.autograd.gradgradcheck
LAYOUTS = {"planes": lambda x: x, "channels last": lambda x: x.to(memory_format=torch.channels_last)}
PARAMETERS = {"none": 1, "weight": 2, "weight and bias": 3}


def ours(x: Any, weight: Any = None, bias: Any = None) -> Any:
    return bt.functional.batch_norm(x, None, None, weight, bias, True, 0.1, 0.01)


def theirs(x: Any, weight: Any = None, bias: Any = None) -> Any:
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, 0.01)


@pytest.fixture
def given(request: pytest.FixtureRequest) -> list[Any]:
    """x, weight and bias."""
    torch.manual_seed(len(request.node.name))
    return [torch.randn(3, 4, 2, 2).double(), torch.rand(4).double() + 0.5, torch.randn(4).double()]


@pytest.fixture(params=LAYOUTS)
def leaves(request: pytest.FixtureRequest, given: list[Any]) -> list[Any]:
    given[0] = LAYOUTS[request.param](given[0])
    return [each.requires_grad_() for each in given]


def same(mine: Any, other: Any) -> None:
    torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", PARAMETERS.values(), ids=PARAMETERS)
def test_by_small_steps(leaves: list[Any], count: int) -> None:
    assert gradcheck(ours, leaves[:count], check_forward_ad=True)
    assert gradgradcheck(ours, leaves[:count], check_fwd_over_rev=True, check_rev_over_rev=True)


def test_running_statistics_beside_them(leaves: list[Any]) -> None:
    def call(*inputs: Any) -> Any:
        return bt.functional.batch_norm(inputs[0], torch.zeros(4).double(), torch.ones(4).double(), *inputs[1:], True)

    assert gradcheck(call, leaves, check_forward_ad=True)


@pytest.mark.parametrize("needed", range(3), ids=["x", "weight", "bias"])
def test_one_gradient_alone(given: list[Any], needed: int) -> None:
    given[needed].requires_grad_()
    assert gradcheck(ours, given, check_forward_ad=True)
    assert needed == 2 or gradgradcheck(ours, given)


def test_a_gradient_penalty(leaves: list[Any]) -> None:
    found = []
    for call in (ours, theirs):
        (dx,) = torch.autograd.grad(call(*leaves).pow(3).sum(), leaves[0], create_graph=True)
        found.append(torch.autograd.grad(dx.norm(), leaves[:2]))
    same(*found)


def test_third_derivatives_are_refused(leaves: list[Any]) -> None:
    (dx,) = torch.autograd.grad(ours(*leaves).pow(3).sum(), leaves[0], create_graph=True)
    (ddx,) = torch.autograd.grad(dx.pow(3).sum(), leaves[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        ddx.sum().backward()


def cube(call: Any, *others: Any) -> Any:
    """A number, whose derivatives of any order are not 0."""
    return lambda x: call(x, *others).pow(3).sum()


TRANSFORMS: dict[str, Any] = {
    "grad": lambda call, x, w, b: func.grad(lambda *all_: call(*all_).pow(3).sum(), (0, 1, 2))(x, w, b),
    "jvp": lambda call, x, w, b: func.jvp(call, (x, w, b), (x**2, w + 1, b)),
    "jvp of x": lambda call, x, w, b: func.jvp(lambda t: call(t, w, b), (x,), (x**2,)),
    "jvp of weight": lambda call, x, w, b: func.jvp(lambda t: call(x, t, b), (w,), (w**2,)),
    "jvp of bias": lambda call, x, w, b: func.jvp(lambda t: call(x, w, t), (b,), (b**2,)),
    "vjp": lambda call, x, w, b: func.vjp(call, x, w, b)[1](x**2),
    "jacrev": lambda call, x, w, b: func.jacrev(call, (0, 1, 2))(x, w, b),
    "jacfwd": lambda call, x, w, b: func.jacfwd(call, (0, 1, 2))(x, w, b),
    "grad of grad": lambda call, x, w, b: func.grad(lambda t: func.grad(cube(call, w, b))(t).pow(2).sum())(x),
}


SECOND: dict[str, Any] = {
    "jacrev of jacrev": lambda f: func.jacrev(func.jacrev(f)),
    "jacrev of jacfwd": lambda f: func.jacrev(func.jacfwd(f)),
    "jacfwd of jacrev": func.hessian,
    "jacfwd of jacfwd": lambda f: func.jacfwd(func.jacfwd(f)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(given: list[Any], name: str) -> None:
    same(TRANSFORMS[name](ours, *given), TRANSFORMS[name](theirs, *given))


def test_a_tangent_by_its_direction(given: list[Any]) -> None:
    """It is linear, so that the gradient of its square is that of vjp."""
    directions = tuple(each**2 + 1 for each in given)
    tangent = func.jvp(ours, tuple(given), directions)[1]
    found = func.grad(lambda *to: func.jvp(ours, tuple(given), to)[1].pow(2).sum() / 2, (0, 1, 2))(*directions)
    same(found, func.vjp(theirs, *given)[1](tangent))


@pytest.mark.parametrize("of", ["x", "weight", "both"])
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(given: list[Any], name: str, of: str) -> None:
    """Beside the gradient of PyTorch's gradient: its jacfwd of jacfwd, and its jacrev of jacfwd, are wrong here."""
    x, w, b = given

    def number(call: Any) -> Any:
        return {
            "x": lambda t: call(t, w, b).pow(3).sum(),
            "weight": lambda t: call(x, t, b).pow(3).sum(),
            "both": lambda t: call(t * x, t * w, b).pow(3).sum(),
        }[of]

    at = {"x": x, "weight": w, "both": torch.ones(()).double()}[of]
    same(SECOND[name](number(ours))(at), torch.autograd.functional.hessian(number(theirs), at))


def mapped(dims: tuple[Any, ...], size: int = 5) -> Iterator[Any]:
    """x, weight and bias, those mapped whose dim is not None."""
    for shape, dim in zip(((3, 4, 2, 2), (4,), (4,)), dims):
        yield torch.randn(*shape[: dim or 0], *([] if dim is None else [size]), *shape[dim or 0 :]).double()


def one_by_one(call: Any, dims: tuple[Any, ...], tensors: list[Any], size: int = 5) -> Any:
    """The results for each element of a map."""
    rows = [
        call(*(each if dim is None else each.select(dim, index) for each, dim in zip(tensors, dims)))
        for index in range(size)
    ]
    if isinstance(rows[0], tuple):
        return tuple(torch.stack(column) for column in zip(*rows))
    return torch.stack(rows)


DIMS = [(0, None, None), (0, 0, 0), (None, 0, None), (None, None, 0), (2, 1, 0), (4, None, 1)]
WITHIN: dict[str, Any] = {
    "y": lambda call: call,
    "grad": lambda call: func.grad(lambda *all_: call(*all_).pow(3).sum(), (0, 1, 2)),
    "jvp": lambda call: lambda *all_: func.jvp(call, all_, tuple(each**2 for each in all_))[1],
    "jacrev": lambda call: func.jacrev(lambda *all_: call(*all_).pow(3).sum((0, 2, 3)), (0, 1)),
    "hessian": lambda call: lambda *all_: func.jacrev(func.jacrev(cube(call, *all_[1:])))(all_[0]),
    "forward over reverse": lambda call: lambda *all_: func.jacfwd(func.jacrev(cube(call, *all_[1:])))(all_[0]),
    "forward over forward": lambda call: lambda *all_: func.jacfwd(func.jacfwd(cube(call, *all_[1:])))(all_[0]),
}


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("name", WITHIN)
def test_vmap(name: str, dims: tuple[Any, ...]) -> None:
    torch.manual_seed(1)
    tensors, within = list(mapped(dims)), WITHIN[name]
    oracle = WITHIN["hessian"] if name.startswith("forward") else within
    same(func.vmap(within(ours), dims)(*tensors), one_by_one(oracle(theirs), dims, tensors))


@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_gradients_through_vmap(dims: tuple[Any, ...]) -> None:
    torch.manual_seed(2)
    tensors = [each.requires_grad_() for each in mapped(dims)]
    found = func.vmap(ours, dims)(*tensors), one_by_one(theirs, dims, tensors)
    same(*(torch.autograd.grad(each.pow(3).sum(), tensors) for each in found))


def test_maps_within_maps() -> None:
    torch.manual_seed(3)
    xs, ws = torch.randn(5, 3, 6, 4, 2, 2).double(), torch.rand(6, 4).double()
    found = func.vmap(func.vmap(ours, (1, 0)), (0, None))(xs, ws)
    same(found, torch.stack([torch.stack([theirs(x[:, i], ws[i]) for i in range(6)]) for x in xs]))


@pytest.mark.parametrize("dims", [(0, 0), (1, 1), (0, 1)], ids=str)
def test_running_statistics_of_a_map(dims: tuple[int, int]) -> None:
    """An ensemble's buffers, stacked: each moves by its own batch, where it is."""
    torch.manual_seed(4)
    xs, running = torch.randn(5, 8, 4).double(), [torch.rand(*((4, 5) if dim else (5, 4))).double() for dim in dims]
    expected = [each.movedim(dim, 0).contiguous().clone() for each, dim in zip(running, dims)]
    found = func.vmap(lambda x, m, v: bt.functional.batch_norm(x, m, v, training=True), (0, *dims))(xs, *running)
    same(found, torch.stack([torch.nn.functional.batch_norm(*each, training=True) for each in zip(xs, *expected)]))
    same([each.movedim(dim, 0) for each, dim in zip(running, dims)], expected)


def test_running_statistics_that_several_batches_would_move() -> None:
    layer, xs = bt.BatchNorm2d(4), torch.randn(5, 3, 4, 2, 2)
    with pytest.raises(RuntimeError, match="^vmap: running_mean would be updated in place by each of several batches"):
        func.vmap(layer)(xs)
    with pytest.raises(RuntimeError):
        func.vmap(torch.nn.BatchNorm2d(4))(xs)
    layer.eval()
    same(func.vmap(layer)(xs), torch.stack([layer(x) for x in xs]))


def test_a_model_as_a_function_of_its_parameters() -> None:
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()).double()
    x, gradients = torch.randn(8, 6).double(), []
    for each in (model, bt.convert(model, inplace=False)):
        parameters, buffers = dict(each.named_parameters()), {k: v.clone() for k, v in each.named_buffers()}

        def loss(parameters: Any, buffers: Any, each: Any = each) -> Any:
            return func.functional_call(each, (parameters, buffers), (x,)).pow(2).sum()

        gradients.append((func.grad(loss)(parameters, buffers), buffers))
    same(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_forward_mode_in_other_dtypes(dtype: Any) -> None:
    torch.manual_seed(6)
    x, t = (torch.randn(6, 4, 3, 3).to(dtype) for _ in range(2))
    w, b = torch.rand(4) + 0.5, torch.randn(4)
    _, mine = func.jvp(lambda x: ours(x, w, b), (x,), (t,))
    _, exact = func.jvp(lambda x: theirs(x, w.double(), b.double()), (x.double(),), (t.double(),))
    assert mine.dtype == dtype
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.double(), exact, rtol=2 * unit, atol=4e-6)
