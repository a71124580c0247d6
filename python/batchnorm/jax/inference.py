# SPDX-License-Identifier: Apache-2.0
"""Normalization with statistics that do not depend on x: its derivatives are JAX's own, of any order."""

from __future__ import annotations

import functools
from typing import Any

import jax

from .calling import Call, parameter_dtype
from .primitives import bind, define

inference_p = define("inference", "tcccc", "t")


@functools.partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def normalized(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, axis: int, eps: float) -> Any:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta."""
    return bind(inference_p, x, gamma, beta, mean, var, call=Call(axis, x.ndim, eps))[0]


@normalized.defjvp  # type: ignore[untyped-decorator]
def _normalized_jvp(axis: int, eps: float, primals: Any, tangents: Any) -> Any:
    formula = functools.partial(_formula, axis=axis, eps=eps)
    return normalized(*primals, axis, eps), jax.jvp(formula, primals, tangents)[1]


def _formula(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, *, axis: int, eps: float) -> Any:
    shape = [1] * x.ndim
    shape[axis] = -1
    scale = gamma * jax.lax.rsqrt(var + eps)
    centred = x.astype(parameter_dtype(x)) - mean.reshape(shape)
    return (centred * scale.reshape(shape) + beta.reshape(shape)).astype(x.dtype)
