# SPDX-License-Identifier: Apache-2.0
"""The library's functions as primitives of JAX, lowered to foreign functions of XLA on the CPU.

The axes of jax.vmap go in front of all operands of a call, of length 1 where an operand is not mapped, so that nothing
is repeated; the library computes the elements of a map one by one, with the bits that they have on their own.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from .._core.library import lib
from .calling import Call, Signature


def define(
    name: str, operands: str, results: str, spread: Callable[..., Any] | None = None, same: tuple[int, ...] = ()
) -> Any:
    """A primitive with one parameter, `call`; spread(*operands, call=) computes it for a batch on several devices.

    The results at the places `same` are the same on all of these.
    """
    primitive = Primitive(f"batchnorm_{name}")
    primitive.multiple_results = True
    signature = Signature(operands, results)
    target = _registered(f"batchnorm_xla_{name}")

    def types(*operands: Any, call: Call) -> list[Any]:
        found = signature.types(call, operands)
        return [_type(operands[0], *each, call.over if at in same else ()) for at, each in enumerate(found)]

    @functools.cache
    def compiled(call: Call) -> Any:
        return jax.jit(lambda *operands: primitive.bind(*operands, call=call))

    def lower(context: Any, *operands: Any, call: Call) -> Any:
        if call.is_spread and spread is not None:
            return mlir.lower_fun(spread, multiple_results=True)(context, *operands, call=call)
        attributes = {name: mlir.i64_attr(number) for name, number in call.attributes.items()}
        return jax.ffi.ffi_lowering(target, backend_config=attributes)(context, *operands)

    primitive.def_abstract_eval(types)
    primitive.def_impl(lambda *operands, call: compiled(call)(*operands))
    mlir.register_lowering(primitive, _refuse)
    mlir.register_lowering(primitive, lower, platform="cpu")
    batching.fancy_primitive_batchers[primitive] = functools.partial(_batch, primitive, signature)
    return primitive


def bind(primitive: Any, *operands: Any, call: Call) -> Any:
    """The results for operands that may vary over different axes of a mesh.

    The library takes whole arrays. Where the sharding of an array is a part of its type, this is a part of the program.
    """
    operands = tuple(_whole(each) for each in operands)
    axes = [jax.typeof(each).mat.varying for each in operands]
    every = frozenset().union(*axes)
    spread = [
        jax.lax.pcast(each, tuple(sorted(every - own)), to="varying") if every - own else each
        for each, own in zip(operands, axes)
    ]
    return primitive.bind(*spread, call=call)


def _whole(operand: Any) -> Any:
    sharding = jax.typeof(operand).sharding
    if all(axes is None for axes in sharding.spec):
        return operand
    return jax.reshard(operand, NamedSharding(sharding.mesh, PartitionSpec(*[None] * operand.ndim)))


def _type(like: Any, shape: Any, dtype: Any, same: tuple[Any, ...]) -> Any:
    """The type of a result, which varies over the axes of a mesh that an operand varies over, but for those given."""
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(*[None] * len(shape)))
    kind = like.mat.update(varying=like.mat.varying - set(same))
    return like.update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding, manual_axis_type=kind)


@functools.cache
def _registered(target: str) -> str:
    """A function of the library, once XLA knows it."""
    address = ctypes.cast(lib[target], ctypes.c_void_p)
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(address), platform="cpu")
    return target


def _refuse(context: Any, *operands: Any, call: Call) -> Any:
    platforms = context.platforms or context.module_context.platforms
    raise NotImplementedError(f"batchnorm.jax computes on the CPU, but this is compiled for {', '.join(platforms)}")


def _batch(primitive: Any, signature: Signature, axis: Any, operands: Any, dims: Any, *, call: Call) -> Any:
    """The results of a map. Over an axis of devices, its elements are parts of the batch."""
    if axis.name not in call.over and all(dim is None for dim in dims):
        found = bind(primitive, *operands, call=call)
        return found, [None] * len(found)
    moved = [
        jnp.expand_dims(each, 0) if dim is None else jnp.moveaxis(each, dim, 0) for each, dim in zip(operands, dims)
    ]
    if axis.name in call.over:
        moved = [
            jnp.broadcast_to(each, (axis.size, *each.shape[1:])) if letter == "t" else each
            for letter, each in zip(signature.chosen(signature.operands, call), moved)
        ]
        call = call.along_map(axis.name, signature.in_front(call, moved) - 1)
    found = bind(primitive, *moved, call=call)
    return found, [0] * len(found)
