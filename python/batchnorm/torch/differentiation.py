# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for PyTorch's differentiation: gradients, gradients of gradients, forward mode, and vmap.

`Forward` is y, `Backward` its gradient, `Tangent` its derivative along a direction, and `Gradient` the gradient of
`Backward`. The four are enough for all derivatives up to the second, in either mode. As x_hat = M * grad(std), with
std = sqrt(var + eps), its derivatives are those of a number, in which the order of directions does not matter::

    Tangent(t) = gamma * P(t)        <u, P(t)> = <P(u), t>        P = x_hat' = M * std''
    P'[s](t) = P'[t](s)              P' = M * std'''

So a derivative of P(t) along s is what `Gradient` gives for s in place of the gradient, and t in place of dy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import calls
from .batching import each, tensor, tensor_apart, vector, vector_apart
from .watching import is_transformed


class Derivatives:
    """The derivatives of y, which `Forward` and `Eager` have."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return (None,) * 7
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed():
            dx, dweight, dbias = Backward.apply(dy, x, weight, bias, ctx.statistics)
        else:
            dx, dweight, dbias = calls.backward(dy, x, ctx.statistics)
        return dx, as_of(dweight, weight), as_of(dbias, bias), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tx: Any, tweight: Any, tbias: Any, *_: Any) -> Any:
        return Tangent.apply(tx, tweight, tbias, *ctx.saved_tensors, ctx.statistics)


class Eager(Derivatives, Function):
    """y, without transforms: PyTorch takes 30 µs longer over a Function that knows them (`Forward`)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        y, ctx.statistics = calls.forward(*given)
        keep(ctx, given)
        return y


class Forward(Derivatives, Function):
    """y, and the statistics that its derivatives need, which are not a tensor."""

    @staticmethod
    def forward(
        x: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: float, eps: float
    ) -> Any:
        return calls.forward(x, weight, bias, running_mean, running_var, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.statistics = output[1]
        keep(ctx, inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return Derivatives.jvp(ctx, *tangents), None

    @staticmethod
    def vmap(
        info: Any, dims: Any, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *options: float
    ) -> Any:
        size, running = info.batch_size, (running_mean, running_var)
        if running_mean is not None and None in dims[3:5]:
            raise RuntimeError(
                "vmap: running_mean would be updated in place by each of several batches: map it as well, give no "
                "running statistics, or evaluate"
            )
        moved = [vector(each, dim, size) for each, dim in zip(running, dims[3:5])]
        x, weight, bias = tensor(x, dims[0], size), vector(weight, dims[1], size), vector(bias, dims[2], size)
        y, statistics = Forward.apply(x, weight, bias, *moved, *options)
        for given, dim, new in zip(running, dims[3:5], moved):
            if new is not None:  # it may be a copy
                given.movedim(dim, 0).copy_(new.unflatten(0, (size, -1)))
        y, dim = tensor_apart(y, size)
        return (y, statistics), (dim, None)


class Backward(Function):
    """dx, dgamma and dbeta. What depends on x and gamma through the statistics is a part of its derivative."""

    @staticmethod
    def forward(dy: Tensor, x: Tensor, weight: Any, bias: Any, statistics: Any) -> Any:
        return calls.backward(dy, x, statistics)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        dy, *others, ctx.statistics = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, *others)
        ctx.save_for_forward(dy, *others)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        *given, _ = tensors = ctx.saved_tensors
        ddy, dx, dweight = Gradient.apply(*gradients, *tensors, ctx.statistics)
        return ddy, dx, as_of(dweight, given[2]), None, None

    @staticmethod
    def jvp(ctx: Any, tdy: Any, tx: Any, tweight: Any, *_: Any) -> Any:
        dy, *others = ctx.saved_tensors
        first = (None,) * 3 if tdy is None else Backward.apply(tdy, *others, ctx.statistics)
        _, dx, dgamma = Gradient.apply(tx, tweight, None, dy, *others, ctx.statistics)
        # PyTorch fails where a result has no tangent at all.
        return total(first[0], dx), total(first[1], dgamma), torch.zeros_like(dgamma) if tdy is None else first[2]

    @staticmethod
    def vmap(info: Any, dims: Any, dy: Any, x: Any, weight: Any, bias: Any, statistics: Any) -> Any:
        size = info.batch_size
        if dims[1:4] == (None, None, None):
            return each(size, dims, Backward.apply, dy, x, weight, bias, statistics)
        tensors, vectors = folded(size, dims, (dy, x), (weight, bias))
        dx, dgamma, dbeta = Backward.apply(*tensors, *vectors, statistics)
        return apart(size, [dx], [dgamma, dbeta])


class Tangent(Function):
    """The tangent of y, from those of x, gamma and beta."""

    @staticmethod
    def forward(tx: Any, tweight: Any, tbias: Any, x: Any, weight: Any, bias: Any, statistics: Any) -> Any:
        return calls.jvp(x, statistics, tx, tweight, tbias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.statistics = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, dty: Tensor | None) -> Any:
        if dty is None:
            return (None,) * 7
        tx, tweight, tbias, x, weight, bias = ctx.saved_tensors
        first = Backward.apply(dty, x, weight, bias, ctx.statistics)
        _, dx, dweight = Gradient.apply(tx, tweight, None, dty, x, weight, bias, ctx.statistics)
        tangents = [each if given is not None else None for each, given in zip(first, (tx, tweight, tbias))]
        return *tangents, dx, as_of(dweight, weight), None, None

    @staticmethod
    def jvp(ctx: Any, ttx: Any, ttweight: Any, ttbias: Any, sx: Any, sweight: Any, *_: Any) -> Any:
        tx, tweight, _, *others = ctx.saved_tensors
        terms = [Tangent.apply(ttx, ttweight, ttbias, *others, ctx.statistics)]
        if tx is not None:
            terms.append(Gradient.apply(sx, sweight, None, tx, *others, ctx.statistics)[1])
        if sx is not None:
            terms.append(Gradient.apply(None, tweight, None, sx, *others, ctx.statistics)[1])
        return total(*terms)

    @staticmethod
    def vmap(
        info: Any, dims: Any, tx: Any, tweight: Any, tbias: Any, x: Any, weight: Any, bias: Any, statistics: Any
    ) -> Any:
        size, given = info.batch_size, (tx, tweight, tbias, x, weight, bias, statistics)
        if dims[3:6] == (None, None, None):
            (ty,), (dim,) = each(size, dims, lambda *mapped: (Tangent.apply(*mapped),), *given)
            return ty, dim
        of_dims = (dims[0], dims[3], dims[1], dims[2], dims[4], dims[5])
        (tx, x), (tweight, tbias, weight, bias) = folded(size, of_dims, (tx, x), (tweight, tbias, weight, bias))
        return tensor_apart(Tangent.apply(tx, tweight, tbias, x, weight, bias, statistics), size)


class Gradient(Function):
    """The gradient of `Backward` with respect to dy, x and gamma. Its own gradient is not known."""

    @staticmethod
    def forward(ddx: Any, ddgamma: Any, ddbeta: Any, dy: Any, x: Any, weight: Any, bias: Any, statistics: Any) -> Any:
        return calls.double_backward(dy, x, statistics, ddx, ddgamma, ddbeta)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("batch normalization has no third derivatives here: take torch.nn's for them")

    @staticmethod
    def vmap(info: Any, dims: Any, *given: Any) -> Any:
        size = info.batch_size
        if dims[4:7] == (None, None, None):
            return each(size, dims, Gradient.apply, *given)
        ddx, ddgamma, ddbeta, dy, x, weight, bias, statistics = given
        of_dims = (dims[0], dims[3], dims[4], dims[1], dims[2], dims[5], dims[6])
        tensors, vectors = folded(size, of_dims, (ddx, dy, x), (ddgamma, ddbeta, weight, bias))
        (ddx, dy, x), (ddgamma, ddbeta, weight, bias) = tensors, vectors
        ddy, dx, dgamma = Gradient.apply(ddx, ddgamma, ddbeta, dy, x, weight, bias, statistics)
        return apart(size, [ddy, dx], [dgamma])


def normalized(*given: Any) -> Tensor:
    """y, for the arguments of calls.forward()."""
    y: Tensor = Forward.apply(*given)[0] if is_transformed() else Eager.apply(*given)
    return y


def keep(ctx: Any, inputs: Any) -> None:
    """The arguments of a forward call that its derivatives need beside its statistics."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3])
    ctx.save_for_forward(*inputs[:3])


def as_of(gradient: Any, parameter: Any) -> Any:
    """The gradient of a parameter, if there is one."""
    return None if parameter is None else gradient


def folded(size: int, dims: Any, tensors: Any, vectors: Any) -> tuple[list[Any], list[Any]]:
    """Tensors and vectors with the batches of a map for channels; `dims` are those of the tensors, then the vectors."""
    maps = [tensor(value, dim, size) for value, dim in zip(tensors, dims)]
    return maps, [vector(value, dim, size) for value, dim in zip(vectors, dims[len(tensors) :])]


def apart(size: int, tensors: list[Any], vectors: list[Any]) -> Any:
    """Results with the map as a dimension of its own, and where that is."""
    found = [tensor_apart(value, size) for value in tensors] + [vector_apart(value, size) for value in vectors]
    return tuple(value for value, _ in found), tuple(dim for _, dim in found)


def total(*terms: Any) -> Any:
    """Their sum; None stands for 0."""
    there = [term for term in terms if term is not None]
    return sum(there[1:], there[0])
