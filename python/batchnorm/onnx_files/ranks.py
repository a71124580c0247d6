# SPDX-License-Identifier: Apache-2.0
"""The number of axes of each tensor of a model, by ONNX's shape inference."""

from __future__ import annotations

from typing import Any

from ._onnx import onnx

# Tensors of up to this many elements may be shapes, whose values count; others are left out for their size.
_SHAPE = 64


def with_shapes(model: Any) -> Any:
    """The model with the shapes that can be inferred, and without weights."""
    bare = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    bare.graph.input.extend(model.graph.input)
    bare.graph.value_info.extend(model.graph.value_info)
    given = {each.name for each in model.graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.dims) <= 1 and all(length <= _SHAPE for length in tensor.dims):
            bare.graph.initializer.append(tensor)
        elif tensor.name not in given:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            bare.graph.input.append(value)
    try:
        return onnx.shape_inference.infer_shapes(bare)
    except Exception:  # of its C++ part, or of protobuf for what is beyond 2 GB: then less is known
        return bare


def ranks_of(graph: Any) -> dict[str, int]:
    """The number of axes of each tensor of a graph that it says the shape of."""
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
