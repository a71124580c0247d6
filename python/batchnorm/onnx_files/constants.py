# SPDX-License-Identifier: Apache-2.0
"""Tensors of a graph that are known without running it, as NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._onnx import attributes, is_a, onnx

Array = NDArray[Any]

# These are computed of constants. Constant itself has no inputs.
OPERATORS = "ConstantOfShape", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"

# A file of a few bytes can ask for any number of elements by ConstantOfShape.
MOST_ELEMENTS = 1 << 29


class Constants:
    """The constants that nodes of a graph can name: its own, and those of the graphs that it stands in.

    Initializers; what Constant and ConstantOfShape put out; and what Identity, Transpose, Reshape, Squeeze, Unsqueeze
    and Cast make of them. Arrays are decoded when they are asked for, and kept.

    Parameters
    ----------
    graph : onnx.GraphProto or onnx.FunctionProto
        Whose external data have been read.
    outer : Constants, optional
        Those of the graph that this one is a part of.
    overridable : bool, default True
        True if an initializer counts that is also an input of the graph, for which a caller may give another value.

    Examples
    --------
    >>> import onnx
    >>> import numpy as np
    >>> from batchnorm.onnx_files import Constants
    >>> graph = onnx.GraphProto(initializer=[onnx.numpy_helper.from_array(np.float32([1, 2]), "w")])
    >>> Constants(graph).get("w"), Constants(graph).get("x")
    (array([1., 2.], dtype=float32), None)
    """

    def __init__(self, graph: Any, outer: Constants | None = None, *, overridable: bool = True) -> None:
        self._outer = outer
        inputs = {each if isinstance(each, str) else each.name for each in graph.input}
        self._tensors = {each.name: each for each in getattr(graph, "initializer", ())}
        self.overridden = set() if overridable else inputs & self._tensors.keys()
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._inputs = inputs
        self._known: dict[str, Array | None] = {}

    def get(self, name: str) -> Array | None:
        """The array of this name, not to be written to, or None where the graph has to be run for it."""
        if name not in self._known:
            self._known[name] = None  # also while it is looked for: a damaged graph may go in circles
            try:
                self._known[name] = self._found(name)
            except RecursionError:  # a chain that is longer than any model's
                return None
        return self._known[name]

    def put(self, tensor: Any) -> None:
        """Sets an initializer, an old one or a new one."""
        self._tensors[tensor.name] = tensor
        self._known.pop(tensor.name, None)

    def why_not(self, name: str) -> str:
        """The origin of a name that get() does not know, as words that follow "it is"."""
        passed: set[str] = set()  # a damaged graph may go in circles
        while (maker := self._makers.get(name)) and is_a(maker, *OPERATORS) and name not in passed:
            passed.add(name)
            name = next((each for each in maker.input if each and self.get(each) is None), name)
        return self._origin(name)

    def _origin(self, name: str) -> str:
        if name in self.overridden:
            return f"{name!r} is an input of the graph as well, which may be given another value"
        if name in self._inputs:
            return f"{name!r} is an input of the graph"
        if name in self._makers:
            return f"{name!r} is computed by {self._makers[name].op_type}"
        if name in self._tensors:
            return f"{name!r} cannot be read"
        return self._outer.why_not(name) if self._outer else f"{name!r} is no constant"

    def _found(self, name: str) -> Array | None:
        if name in self._tensors:
            return None if name in self.overridden else _decoded(self._tensors[name])
        if name in self._makers:
            return self._made(self._makers[name])
        if name in self._inputs or self._outer is None:
            return None
        return self._outer.get(name)

    def _made(self, node: Any) -> Array | None:
        if is_a(node, "Constant"):
            return _of_constant(attributes(node))
        if not is_a(node, *OPERATORS):
            return None
        given = [self.get(name) for name in node.input if name]
        if not given or any(each is None for each in given):
            return None
        try:
            return _computed(node, attributes(node), [each for each in given if each is not None])
        except (ArithmeticError, TypeError, ValueError, IndexError, KeyError):
            return None  # the model is wrong, which running it would tell


def _decoded(tensor: Any) -> Array | None:
    """The array of a tensor; None if it is damaged: of an unknown type, or of other bytes than its shape asks for."""
    try:
        array: Array = onnx.numpy_helper.to_array(tensor)
    except (TypeError, ValueError, KeyError):
        return None
    return array


def _of_constant(told: dict[str, Any]) -> Array | None:
    if "value" in told:
        return _decoded(told["value"])
    for name, dtype in (("float", np.float32), ("int", np.int64)):
        for value in (told.get(f"value_{name}"), told.get(f"value_{name}s")):
            if value is not None:
                return np.array(value, dtype)
    return None


def _computed(node: Any, told: dict[str, Any], given: list[Array]) -> Array:
    x = given[0]
    if node.op_type == "ConstantOfShape":
        fill = onnx.numpy_helper.to_array(told["value"]).reshape(()) if "value" in told else np.float32(0)
        if math.prod(int(each) for each in x) > MOST_ELEMENTS:
            raise ValueError("too large")
        return np.full(tuple(int(each) for each in x), fill)
    if node.op_type == "Transpose":
        return x.transpose(told.get("perm"))
    if node.op_type == "Cast":
        # A number that an integer does not hold becomes what the machine makes of it.
        with np.errstate(invalid="raise", over="ignore"):
            return x.astype(onnx.helper.tensor_dtype_to_np_dtype(told["to"]))
    if node.op_type == "Reshape":
        shape = [int(each) for each in (given[1] if len(given) > 1 else told["shape"])]
        if told.get("allowzero"):
            return x.reshape(shape)
        return x.reshape([x.shape[axis] if each == 0 else each for axis, each in enumerate(shape)])
    axes = tuple(int(each) for each in (given[1] if len(given) > 1 else told.get("axes", ())))
    if node.op_type == "Unsqueeze":
        return np.expand_dims(x, axes)
    if node.op_type == "Squeeze":
        return np.squeeze(x, axes or None)
    return x
