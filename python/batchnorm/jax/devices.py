# SPDX-License-Identifier: Apache-2.0
"""Batch normalization of a batch that lies on several devices, whose moments and sums are gathered.

Every device has all rows, and merges them in the same order: the bits depend on how the batch is cut into rows, and not
on where these are. Doubles are gathered as they are, in pairs of integers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .calling import Call, parameter_dtype
from .primitives import bind, define

moments_p = define("moments", "t", "m")
normalize_p = define("normalize", "tccM", "tscck")
reduce_p = define("reduce", "tts", "ucc")
apply_p = define("apply", "ttcskU", "ts")
tangent_here_p = define("tangent", "?t?c?ctcs", "t")


def forward(x: Any, gamma: Any, beta: Any, *, call: Call) -> list[Any]:
    """y, saved statistics, and mean and variance of the whole batch."""
    (rows,) = bind(moments_p, x, call=call)
    return list(bind(normalize_p, x, gamma, beta, _gathered(rows, call), call=call)[:4])


def tangent(*operands: Any, call: Call) -> list[Any]:
    """The tangent of y."""
    tx, tgamma, tbeta, x, gamma, saved = spread(operands, call.given)
    given = [each for each in (tgamma, tbeta) if each is not None]
    terms = []
    if tx is not None:
        terms.append(_projected(tx, x, gamma, saved, call)[0])
    if given:
        here = call.having(False, tgamma is not None, tbeta is not None)
        terms += bind(tangent_here_p, *given, x, gamma, saved, call=here)
    return [sum(terms[1:], terms[0])]


def backward(dy: Any, x: Any, gamma: Any, saved: Any, *, call: Call) -> list[Any]:
    """dx; and dgamma and dbeta of the part of the batch that is here."""
    if call.given[0]:
        found = _projected(dy, x, gamma, saved, call)
    else:
        found = None, *bind(reduce_p, dy, x, saved, call=call)[1:]
    return [each for each, is_wanted in zip(found, call.given) if is_wanted]


def double_backward(*operands: Any, call: Call) -> list[Any]:
    """The formulas of bn_double_backward in JAX's arithmetic, with sums over all devices.

    The part of gamma is that of the batch that is here, as dgamma is.
    """
    sx, sgamma, dy, x, gamma, saved = spread(operands, call.given)
    wide = parameter_dtype(x)
    ones = jnp.ones_like(gamma)
    projected_dy, slope_of_dy, sum_of_dy = _projected(dy, x, ones, saved, call)
    hx, hgamma = jnp.zeros((), wide), jnp.zeros_like(slope_of_dy)
    if sgamma is not None:
        hx = _along(sgamma, call) * projected_dy
    if sx is not None:
        count = max(call.values(x), 1)
        projected_s, slope_of_s, _ = _projected(sx, x, ones, saved, call)
        (x_hat,) = bind(tangent_here_p, ones, x, gamma, saved, call=call.having(False, True, False))
        of_s, of_dy, sum_of_dy = (over_all(each, call) for each in (slope_of_s, slope_of_dy, sum_of_dy))
        both = _summed(sx.astype(wide) * (dy.astype(wide) - _along(sum_of_dy / count, call)), call)
        both = over_all(both, call) - of_s * of_dy / count
        invstd = _as_float(saved[..., 1, :, :], wide)
        inside = _along(of_s, call) * projected_dy + _along(of_dy, call) * projected_s
        hx -= _along(gamma * invstd / count, call) * (inside + _along(invstd * both, call) * x_hat)
        hgamma = _summed(dy.astype(wide) * projected_s, call)
    return [hx.astype(x.dtype), hgamma]


def spread(values: Any, given: Any) -> list[Any]:
    """The operands of a call by their places, None for those that are not there."""
    rest = iter(values)
    return [next(rest) if is_given else None for is_given in given] + list(rest)


def _projected(v: Any, x: Any, gamma: Any, saved: Any, call: Call) -> tuple[Any, Any, Any]:
    """dx for v as dy; dgamma and dbeta of the part of the batch that is here."""
    rows, slope, sum_of_v = bind(reduce_p, v, x, saved, call=call)
    count = np.zeros((3, call.channels(x), 2), np.uint32)
    count[0] = np.full(call.channels(x), call.values(x), np.float64).view(np.uint32).reshape(-1, 2)
    merged = jnp.asarray(count).reshape((1,) * (x.ndim - call.rank) + count.shape)
    dx, _ = bind(apply_p, v, x, gamma, saved, merged, _gathered(rows, call), call=call)
    return dx, slope, sum_of_v


def over_all(channels: Any, call: Call) -> Any:
    """The sum of an array of channels over all parts of the batch."""
    for lane in call.lanes:
        total = jnp.sum(channels, -1 - lane, keepdims=True)
        channels = jnp.broadcast_to(total, channels.shape)
    return jax.lax.psum(channels, call.over) if call.over else channels


def _gathered(rows: Any, call: Call) -> Any:
    """The rows of all parts of the batch, in their order."""
    for lane in call.lanes:
        rows = jnp.moveaxis(jnp.expand_dims(rows, -5 - lane), -4 - lane, -4)
        rows = rows.reshape(*rows.shape[:-4], -1, *rows.shape[-2:])
    if call.over:
        every = jax.lax.all_gather(rows, call.over)
        every = jnp.moveaxis(every, 0, rows.ndim - 3)
        rows = every.reshape(*rows.shape[:-3], -1, *rows.shape[-2:])
    return rows


def _along(channels: Any, call: Call) -> Any:
    """An array of channels, as it is broadcast over a tensor."""
    after = call.rank - 1 - call.axis
    return channels.reshape(*channels.shape[:-1], *(1,) * call.axis, channels.shape[-1], *(1,) * after)


def _summed(tensor: Any, call: Call) -> Any:
    """Sums per channel."""
    others = [axis - call.rank for axis in range(call.rank) if axis != call.axis]
    return tensor.sum(others)


def _as_float(words: Any, dtype: Any) -> Any:
    """Doubles of at least 0, in pairs of integers, as numbers of this dtype.

    float32 has its last bit cut off; below its normal numbers it is 0, and above them infinite.
    """
    if dtype == np.float64:
        return jax.lax.bitcast_convert_type(words, np.float64)
    low, high = words[..., 0], words[..., 1]
    bits = (high - np.uint32(896 << 20) << 3) | (low >> 29)
    found = jax.lax.bitcast_convert_type(bits, np.float32)
    exponent = high >> 20
    beyond = jnp.where(high > np.uint32(2047 << 20), np.nan, np.inf)
    return jnp.where(exponent < 897, 0, jnp.where(exponent > 1150, beyond, found)).astype(np.float32)
