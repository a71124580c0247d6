# SPDX-License-Identifier: Apache-2.0
"""Models run by ONNX Runtime, with tensors from within as outputs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._onnx import onnx
from .reading import sentence
from .scope import names_in, subgraphs
from .writing import MOST_BYTES, size_of

Array = NDArray[Any]

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


class Session:
    """A model that runs.

    Parameters
    ----------
    model : onnx.ModelProto
        With its external data in it, of less than 2 GB.
    outputs : iterable of str
        The tensors that are asked for. Only what they need is kept.
    optimized : bool, default False
        True if ONNX Runtime may fuse nodes.
    """

    def __init__(self, model: Any, outputs: Iterable[str], *, optimized: bool = False) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        self.outputs = list(outputs)
        if size_of(model) > MOST_BYTES:
            raise ValueError("the model is larger than 2 GB, which is more than can be run with outputs from within")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        levels = runtime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
        content = _cut(model, self.outputs).SerializeToString()
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each of its status codes
            raise ValueError(f"ONNX Runtime does not take the model: {sentence(error)}") from None

    @property
    def inputs(self) -> dict[str, tuple[str, Sequence[Any]]]:
        """The type and the shape of each input, as ONNX Runtime has them."""
        return {each.name: (each.type, each.shape) for each in self._session.get_inputs()}

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name."""
        there = self.inputs
        try:
            results = self._session.run(self.outputs, {name: x for name, x in given.items() if name in there})
        except Exception as error:
            raise ValueError(f"ONNX Runtime cannot run the model: {sentence(error)}") from None
        return {name: np.asarray(each) for name, each in zip(self.outputs, results)}


def _cut(model: Any, outputs: Sequence[str]) -> Any:
    """The model with these outputs alone, and the nodes that they need."""
    needed, kept = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for inner in subgraphs(node):
                needed.update(names_in(inner))
    told = {each.name: each for each in (*model.graph.value_info, *model.graph.output)}
    cut = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    cut.graph.name = model.graph.name
    cut.graph.node.extend(reversed(kept))
    cut.graph.output.extend(told.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
    for field in ("input", "initializer"):
        getattr(cut.graph, field).extend(each for each in getattr(model.graph, field) if each.name in needed)
    cut.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return cut
