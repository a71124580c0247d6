# SPDX-License-Identifier: Apache-2.0
"""Models in files, and what the commands that fold them say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_making import onnx

from batchnorm.cli import main


def save(model: Any, path: Path, **told: Any) -> Path:
    onnx.save(model, str(path), **told)
    return path


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The sentence on stderr, after exit 1 and nothing on stdout."""
    assert main([str(each) for each in arguments]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"batchnorm {arguments[0]}: ")
    assert said.err.count("\n") == 1
    return said.err.partition(": ")[2].strip()


def value(name: str, shape: Any, kind: int = onnx.TensorProto.FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def small(nodes: list[Any], outputs: list[Any], **arrays: Any) -> Any:
    """A model of an x of (3, 4)."""
    stored = [onnx.numpy_helper.from_array(np.array(array), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [value("x", [3, 4])], outputs, stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
