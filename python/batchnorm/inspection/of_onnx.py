# SPDX-License-Identifier: Apache-2.0
"""Batch norms of an ONNX graph, of the graphs within it, and of the functions that it calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..onnx_files import Constants, read_model
from ..onnx_files._onnx import attributes, onnx, opset_of
from ..onnx_files.norms import in_training, is_norm
from .norm import NAMES, Array, Norm

# Functions that call each other without end.
_DEEPEST = 50


def norms_of_onnx(path: Path) -> list[Norm]:
    """The batch norms of a file; a ValueError if it is no ONNX model, or if a file of its numbers is missing."""
    model = read_model(path, check=False)
    functions = {(each.domain, each.name): each for each in model.functions}
    return list(_Walk(functions).graph(model.graph, opset_of(model.opset_import), None, "", 0))


class _Bound(Constants):
    """The constants of a function's body, whose inputs are what a call gives it."""

    def __init__(self, function: Any, given: Mapping[str, str], caller: Constants) -> None:
        super().__init__(function)
        self._given, self._caller = given, caller

    def get(self, name: str) -> Array | None:
        return self._caller.get(self._given[name]) if name in self._given else super().get(name)

    def _origin(self, name: str) -> str:
        return self._caller.why_not(self._given[name]) if name in self._given else super()._origin(name)


class _Walk:
    def __init__(self, functions: Mapping[tuple[str, str], Any]) -> None:
        self.functions = functions

    def graph(self, graph: Any, opset: int, outer: Constants | None, above: str, depth: int) -> Iterator[Norm]:
        yield from self.nodes(graph.node, opset, Constants(graph, outer), {}, above, depth)

    def nodes(
        self, nodes: Any, opset: int, constants: Constants, given: Mapping[str, Any], above: str, depth: int
    ) -> Iterator[Norm]:
        """The batch norms of a body, whose attributes may refer to the `given` ones of a function."""
        if depth > _DEEPEST:
            raise ValueError(f"{above} is nested without end, or too deeply")
        for node in nodes:
            told = attributes(node)
            told.update({a.name: given[a.ref_attr_name] for a in node.attribute if a.ref_attr_name in given})
            name = above + (node.name or next(iter(node.output), "") or node.op_type)
            if is_norm(node):
                yield _norm(name, node, told, opset, constants)
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
                for index, body in enumerate(inner):
                    which = f"{name}/{attribute.name}{index if len(inner) > 1 else ''}/"
                    yield from self.graph(body, opset, constants, which, depth + 1)
            function = self.functions.get((node.domain, node.op_type))
            if function is not None:
                yield from self.call(function, node, told, constants, name + "/", depth + 1)

    def call(
        self, function: Any, node: Any, told: Mapping[str, Any], constants: Constants, above: str, depth: int
    ) -> Iterator[Norm]:
        given = {inside: outside for inside, outside in zip(function.input, node.input) if outside}
        defaults = {each.name: onnx.helper.get_attribute_value(each) for each in function.attribute_proto}
        opset = opset_of(function.opset_import)
        yield from self.nodes(
            function.node, opset, _Bound(function, given, constants), {**defaults, **told}, above, depth
        )


def _norm(name: str, node: Any, told: Mapping[str, Any], opset: int, constants: Constants) -> Norm:
    referring = any(each.ref_attr_name and each.name == "training_mode" for each in node.attribute)
    training = ("training_mode=1" if told.get("training_mode") else "") if referring else in_training(node, opset)
    if training == "settings that a function is given":  # which the call has told
        training = "training_mode=1" if told.get("training_mode") else ""
    eps, momentum = told.get("epsilon", 1e-5), told.get("momentum", 0.9)
    for attribute, value in (("epsilon", eps), ("momentum", momentum)):
        if not isinstance(value, (int, float)):
            return Norm(name, "onnx", in_training=training, unknown=f"its {attribute} is no number")
    # float32 in the file: the shortest number that is the same there.
    norm = Norm(name, "onnx", eps=float(f"{eps:.7g}"), momentum=round(1 - float(f"{momentum:.7g}"), 7))
    norm.in_training = training
    names = list(node.input[1:5])
    try:
        arrays = [constants.get(each) if each else None for each in names]
        missing = [constants.why_not(each) for each, array in zip(names, arrays) if array is None]
    except Exception as error:  # of whatever type: the file is damaged, and onnx does not expect that
        arrays, missing = [], [f"they are damaged ({type(error).__name__})"]
    if missing:
        norm.unknown = f"its parameters are not in the file: {missing[0]}"
        return norm
    if len(arrays) < 4:
        norm.unknown = f"it has {len(arrays) + 1} inputs, expected 5"
        return norm
    return norm.take(dict(zip(NAMES, arrays)))
