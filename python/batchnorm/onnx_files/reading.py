# SPDX-License-Identifier: Apache-2.0
"""A model from a file, or an error in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from ._onnx import onnx

PathLike = Union[str, "os.PathLike[str]"]


def read_model(path: PathLike, *, check: bool = True) -> Any:
    """The onnx.ModelProto of a file, with the tensors that it keeps in other files.

    Parameters
    ----------
    path : str or path
        External data are looked for beside it, as ONNX has it, and nowhere else.
    check : bool, default True
        True if it has to pass onnx.checker, too.

    Raises
    ------
    ValueError
        It is no ONNX model, is damaged, or a file of external data is missing or too short.
    OSError
        It cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty, expected an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, whose module differs between its versions
        raise ValueError(f"{path} is no ONNX model, or is cut off: {sentence(error)}") from None
    del content
    if not model.HasField("graph") or not model.ir_version:
        raise ValueError(f"{path} is no ONNX model: it has no graph")
    for text in _texts(model):
        if not isinstance(text, str):  # protobuf hands on what it cannot decode
            raise ValueError(f"{path} is damaged: {text!r:.100} is not in UTF-8")
    _read_external(model, path)
    if check:
        check_file(path)
    return model


def check_file(path: PathLike, name: PathLike | None = None) -> None:
    """ValueError unless onnx.checker takes the model; `name` is how the error calls the file."""
    try:
        onnx.checker.check_model(os.fspath(path))
    except Exception as error:  # also MemoryError and RuntimeError of its C++ part, for files that are damaged
        raise ValueError(f"{name or path} is no valid ONNX model: {sentence(error)}") from None


def _texts(message: Any) -> Iterator[Any]:
    """All texts of a message, and nothing of its numbers, which may be large."""
    for field in message.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING:
            value = getattr(message, field.name)
            yield from [value] if isinstance(value, (str, bytes)) else value
        elif field.type == field.TYPE_MESSAGE:
            value = getattr(message, field.name)
            if not hasattr(value, "DESCRIPTOR"):
                for each in value:
                    yield from _texts(each)
            elif message.HasField(field.name):
                yield from _texts(value)


def tensors(model: Any) -> Iterator[Any]:
    """Every TensorProto of a model that may be large: initializers and attributes, those of subgraphs too."""
    for function in model.functions:
        yield from _of_nodes(function.node)
    yield from _of_graph(model.graph)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _of_graph(graph)


def _read_external(model: Any, path: Path) -> None:
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = Path({entry.key: entry.value for entry in tensor.external_data}.get("location", ""))
        said = f"{path} has the numbers of {tensor.name!r} in {str(where)!r}"
        if where.is_absolute() or ".." in where.parts:
            raise ValueError(f"{said}, expected a file beside it or below")
        if not (path.parent / where).is_file():
            raise ValueError(f"{said}, which is not there")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # of several types, some of them of C++
            raise ValueError(f"{said}, which cannot be read: {sentence(error)}") from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def sentence(error: BaseException) -> str:
    """The first line of an error of a package."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
