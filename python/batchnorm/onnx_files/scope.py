# SPDX-License-Identifier: Apache-2.0
"""A graph that can be changed: the nodes that make and that take each tensor, also in the subgraphs within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._onnx import is_a, onnx
from .constants import OPERATORS, Constants

_SAME_RANK = "BatchNormalization", "Clip", "Dropout", "Elu", "Identity", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"


class Scope:
    """A graph or subgraph, with the graph it stands in as `outer`.

    `ranks` has the number of axes of those tensors that it is known of. The nodes are a list of their own until
    finish() puts them back.
    """

    def __init__(
        self, model: Any, graph: Any, opset: int, ranks: Mapping[str, int], outer: Scope | None, overridable: bool
    ) -> None:
        self.model, self.graph, self.opset, self.outer = model, graph, opset, outer
        self.ranks = ranks
        self.constants: Constants = Constants(graph, outer.constants if outer else None, overridable=overridable)
        self.nodes = list(graph.node)
        self.outputs = {each.name for each in graph.output}
        _in_order(self.nodes)
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.users: dict[str, list[Any]] = {}
        self.captured: Counter[str] = Counter()
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
            for inner in subgraphs(node):
                self.captured.update(names_in(inner))
        self.names: set[str] = outer.names if outer else set(names_in(graph, everything=True))

    def only_user(self, name: str) -> Any:
        """The one node that takes this tensor; None if nothing does, or something else needs it as well."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and not self.shown(name) else None

    def shown(self, name: str) -> bool:
        """True if not only nodes of this graph see the tensor: it is an output, or a subgraph takes it."""
        return name in self.outputs or self.captured[name] > 0

    def rank(self, name: str) -> int | None:
        """The number of axes of a tensor, also where ONNX infers none, as from old operators; None if not known."""
        while name not in self.ranks and name in self.makers:
            maker = self.makers[name]
            if is_a(maker, "Gemm", "Flatten"):
                return 2
            if not is_a(maker, *_SAME_RANK):
                return None
            name = maker.input[0]
        return self.ranks.get(name)

    def fresh(self, hint: str) -> str:
        """A name like this one that nothing has; the same one each time that a model is folded."""
        number, name = 1, hint
        while name in self.names:
            number += 1
            name = f"{hint}_{number}"
        self.names.add(name)
        return name

    def remove(self, node: Any) -> None:
        """Takes a node out, and the constants that it alone needed."""
        del self.nodes[_place(self.nodes, node)]
        for name in node.output:
            self.makers.pop(name, None)
        for name in list(node.input):
            self._no_longer(node, name)

    def insert_after(self, node: Any, added: Any) -> None:
        self.nodes.insert(_place(self.nodes, node) + 1, added)
        self.makers.update(dict.fromkeys(added.output, added))
        for name in added.input:
            self._from_now_on(added, name)

    def rename_output(self, node: Any, name: str) -> None:
        """Gives a node's first output another name; those who take it stay with the old one."""
        del self.makers[node.output[0]]
        node.output[0] = name
        self.makers[name] = node

    def set_input(self, node: Any, index: int, name: str) -> None:
        while len(node.input) <= index:
            node.input.append("")
            self._from_now_on(node, "")
        old, node.input[index] = node.input[index], name
        self._from_now_on(node, name)
        self._no_longer(node, old)

    def put(self, node: Any, index: int, values: NDArray[Any], hint: str) -> None:
        """Has an input of a node be these values: under its own name, if nothing else has it, or under a new one."""
        old = node.input[index] if len(node.input) > index else ""
        for tensor in self.graph.initializer:
            same_shape = tensor.dims == list(values.shape)  # which the graph may have told elsewhere
            if old and tensor.name == old and same_shape and self.only_user(old) is node:
                tensor.CopyFrom(_tensor(values, old))
                self.constants.put(tensor)
                return
        name = self.fresh(f"{old}_folded" if old else hint)
        self.add_constant(name, values)
        self.set_input(node, index, name)

    def add_constant(self, name: str, values: NDArray[Any]) -> None:
        tensor = _tensor(values, name)
        self.graph.initializer.append(tensor)
        self.constants.put(tensor)
        if self.model.ir_version < 4 and self.outer is None:  # where every initializer has to be an input
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            self.graph.input.append(value)

    def finish(self) -> None:
        """Writes the nodes back, and forgets what the graph says of tensors that it no longer has."""
        ordered = self.nodes
        if len(ordered) == len(self.graph.node) and all(a is b for a, b in zip(ordered, self.graph.node)):
            return
        del self.graph.node[:]
        self.graph.node.extend(ordered)
        there = {name for node in ordered for name in node.output} | {each.name for each in self.graph.input}
        there |= {each.name for each in self.graph.initializer}
        for stale in (self.graph.value_info, self.graph.quantization_annotation):
            key = "name" if stale is self.graph.value_info else "tensor_name"
            kept = [each for each in stale if getattr(each, key) in there]
            if len(kept) < len(stale):
                del stale[:]
                stale.extend(kept)

    def _from_now_on(self, node: Any, name: str) -> None:
        self.users.setdefault(name, []).append(node)
        for scope in self._around():
            scope.captured[name] += 1

    def _no_longer(self, node: Any, name: str) -> None:
        users = self.users[name]
        del users[_place(users, node)]
        for scope in self._around():
            scope.captured[name] -= 1
        if name:
            scope = self
            while not scope._has(name) and scope.outer is not None:
                scope = scope.outer
            scope._release(name)

    def _around(self) -> Iterator[Scope]:
        scope = self.outer
        while scope is not None:
            yield scope
            scope = scope.outer

    def _has(self, name: str) -> bool:
        return name in self.makers or any(each.name == name for each in (*self.graph.initializer, *self.graph.input))

    def _release(self, name: str) -> None:
        """Drops a constant that nothing takes any more."""
        if self.users.get(name) or self.shown(name):
            return
        maker = self.makers.get(name)
        if maker is not None:
            if is_a(maker, "Constant", *OPERATORS) and self.constants.get(name) is not None:
                self.remove(maker)
            return
        if any(each.name == name for each in self.graph.initializer):
            for field in (self.graph.initializer, self.graph.input):
                for index in reversed([i for i, each in enumerate(field) if each.name == name]):
                    del field[index]


def subgraphs(node: Any) -> Iterator[Any]:
    """The bodies of If, Loop, Scan and the like."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def names_in(graph: Any, everything: bool = False) -> Iterator[str]:
    """The names that nodes take, and the outputs, at any depth; with `everything`, every name there is."""
    for node in graph.node:
        yield from node.input
        if everything:
            yield from (*node.output, node.name)
        for inner in subgraphs(node):
            yield from names_in(inner, everything)
    yield from (each.name for each in graph.output)
    if everything:
        yield from (each.name for each in (*graph.input, *graph.initializer, *graph.value_info))
        yield from (each.values.name for each in graph.sparse_initializer)


def _in_order(nodes: list[Any]) -> None:
    """ValueError where nodes go in circles, or two have an output in common: following them would not end."""
    later = Counter(name for node in nodes for name in node.output if name)
    for node in nodes:
        for name in node.input:
            if later[name]:
                raise ValueError(f"{name!r} is taken by {node.op_type} before it is made, or is made twice")
        for name in node.output:
            later[name] -= bool(name)


def _place(nodes: list[Any], node: Any) -> int:
    return next(index for index, each in enumerate(nodes) if each is node)


def _tensor(values: NDArray[Any], name: str) -> Any:
    return onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
