# SPDX-License-Identifier: Apache-2.0
"""Batch normalization for JAX's differentiation: `forward`, and the three functions that its derivatives are made of.

`tangent` is linear in the directions of x, gamma and beta, and `backward` its transpose, linear in dy.
`double_backward` is the Hessian of sum(dy * y) with respect to x and gamma, times a direction: symmetric, and linear in
dy. As x_hat = M * grad(std), with std = sqrt(var + eps), the derivative of P = x_hat' along one direction, applied to
another, does not depend on their order. So it has all second derivatives, in either mode.

The statistics that they are computed with are integers to JAX: what depends on x by way of them is a part of each
formula.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from . import devices
from .calling import Call
from .devices import spread
from .primitives import bind, define

Zero = ad.Zero

forward_p = define("forward", "tcc", "tscc", devices.forward, same=(2, 3))
tangent_p = define("tangent", "?t?c?ctcs", "t", devices.tangent)
backward_p = define("backward", "ttcs", "?t?c?c", devices.backward)
double_backward_p = define("double_backward", "?t?cttcs", "tc", devices.double_backward)


def is_there(value: Any) -> bool:
    return value is not None and type(value) is not Zero


def there(*values: Any) -> list[Any]:
    return [value for value in values if is_there(value)]


def total(*terms: Any) -> Any:
    """Their sum; None if there are none."""
    found = None
    for term in there(*terms):
        found = term if found is None else ad.add_jaxvals(found, term)
    return found


def forward(x: Any, gamma: Any, beta: Any, call: Call) -> Any:
    """y, saved statistics, and mean and variance of the batch."""
    return bind(forward_p, x, gamma, beta, call=call)


def tangent(directions: Any, x: Any, gamma: Any, saved: Any, call: Call) -> Any:
    """The tangent of y along directions of x, gamma and beta; None or a Zero stands for none."""
    if not there(*directions):
        return None
    return bind(tangent_p, *there(*directions), x, gamma, saved, call=call.having(*map(is_there, directions)))[0]


def backward(dy: Any, x: Any, gamma: Any, saved: Any, call: Call, wanted: Any = (True, True, True)) -> list[Any]:
    """dx, dgamma and dbeta; None for those that are not wanted."""
    if not is_there(dy) or not any(wanted):
        return [None] * 3
    found = iter(bind(backward_p, dy, x, gamma, saved, call=call.having(*wanted)))
    return [next(found) if is_wanted else None for is_wanted in wanted]


def double_backward(sx: Any, sgamma: Any, dy: Any, x: Any, gamma: Any, saved: Any, call: Call) -> list[Any]:
    """The Hessian of sum(dy * y) times a direction of x and gamma: parts of x and gamma."""
    if not there(sx, sgamma) or not is_there(dy):
        return [None, None]
    given = is_there(sx), is_there(sgamma)
    return list(bind(double_backward_p, *there(sx, sgamma), dy, x, gamma, saved, call=call.having(*given)))


def _forward_jvp(primals: Any, tangents: Any, *, call: Call) -> Any:
    x, gamma, beta = primals
    _, saved, _, var = found = forward(x, gamma, beta, call)
    ty = tangent(tangents, x, gamma, saved, call)
    tmean = tvar = None
    if is_there(tangents[0]):
        _, slope, sum_of = backward(tangents[0], x, gamma, saved, call, (False, True, True))
        count = max(call.values(x), 1)
        tmean = devices.over_all(sum_of, call) / count
        tvar = devices.over_all(slope, call) * jnp.sqrt(var + call.eps) * (2 / count)
    return found, [or_zero(each, value) for each, value in zip((ty, None, tmean, tvar), found)]


def or_zero(tangent: Any, value: Any) -> Any:
    return Zero(jax.typeof(value).to_tangent_aval()) if tangent is None else tangent


def _tangent_jvp(primals: Any, tangents: Any, *, call: Call) -> Any:
    given = call.given
    tx, tgamma, tbeta, x, gamma, saved = spread(primals, given)
    ttx, ttgamma, ttbeta, sx, sgamma, _ = spread(tangents, given)
    ty = tangent((tx, tgamma, tbeta), x, gamma, saved, call)
    change = total(
        tangent((ttx, ttgamma, ttbeta), x, gamma, saved, call),
        double_backward(sx, sgamma, tx, x, gamma, saved, call)[0],
        double_backward(None, tgamma, sx, x, gamma, saved, call)[0],
    )
    return [ty], [or_zero(change, ty)]


def _tangent_transpose(cotangents: Any, *operands: Any, call: Call) -> Any:
    *linear, x, gamma, saved = spread(operands, call.given)
    wanted = [ad.is_undefined_primal(each) for each in linear]
    found = backward(cotangents[0], x, gamma, saved, call, wanted)
    cts = [fitted(ct, each) for ct, each, is_given in zip(found, linear, call.given) if is_given]
    return [*cts, None, None, None]


def fitted(cotangent: Any, operand: Any) -> Any:
    """The cotangent of an operand that stands for all elements of a map: the sum over them."""
    if cotangent is None:
        return None
    shape = operand.aval.shape
    mapped = [axis for axis, (size, own) in enumerate(zip(cotangent.shape, shape)) if size != own]
    return jnp.sum(cotangent, mapped, keepdims=True) if mapped else cotangent


def _backward_jvp(primals: Any, tangents: Any, *, call: Call) -> Any:
    dy, x, gamma, saved = primals
    tdy, sx, sgamma, _ = tangents
    found = backward(dy, x, gamma, saved, call, call.given)
    own = backward(tdy, x, gamma, saved, call, call.given)
    more = [*double_backward(sx, sgamma, dy, x, gamma, saved, call), None]
    changes = [total(*terms) for terms in zip(own, more)]
    kept = [(value, or_zero(change, value)) for value, change in zip(found, changes) if value is not None]
    return [value for value, _ in kept], [change for _, change in kept]


def _backward_transpose(cotangents: Any, dy: Any, x: Any, gamma: Any, saved: Any, *, call: Call) -> Any:
    given = iter(cotangents)
    directions = [next(given) if is_given else None for is_given in call.given]
    ct = tangent(directions, x, gamma, saved, call)
    return [fitted(ct, dy), None, None, None]


def _double_backward_jvp(primals: Any, tangents: Any, *, call: Call) -> Any:
    sx, sgamma, dy, x, gamma, saved = spread(primals, call.given)
    tsx, tsgamma, tdy, *others = spread(tangents, call.given)
    if there(*others[:2]):
        raise NotImplementedError("batchnorm.jax has derivatives up to the second, and this is a third")
    found = double_backward(sx, sgamma, dy, x, gamma, saved, call)
    first = double_backward(tsx, tsgamma, dy, x, gamma, saved, call)
    second = double_backward(sx, sgamma, tdy, x, gamma, saved, call)
    return found, [or_zero(total(*terms), value) for *terms, value in zip(first, second, found)]


def _double_backward_transpose(cotangents: Any, *operands: Any, call: Call) -> Any:
    sx, sgamma, dy, x, gamma, saved = spread(operands, call.given)
    cx, cgamma = cotangents
    if ad.is_undefined_primal(dy):
        ct = total(
            double_backward(sx, sgamma, cx, x, gamma, saved, call)[0],
            double_backward(None, cgamma, sx, x, gamma, saved, call)[0],
        )
        return [*[None] * sum(call.given), fitted(ct, dy), None, None, None]
    found = double_backward(cx, cgamma, dy, x, gamma, saved, call)
    cts = [fitted(ct, each) for ct, each, is_given in zip(found, (sx, sgamma), call.given) if is_given]
    return [*cts, None, None, None, None]


for primitive, jvp, transpose in (
    (forward_p, _forward_jvp, None),
    (tangent_p, _tangent_jvp, _tangent_transpose),
    (backward_p, _backward_jvp, _backward_transpose),
    (double_backward_p, _double_backward_jvp, _double_backward_transpose),
):
    ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
