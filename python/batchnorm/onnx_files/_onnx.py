# SPDX-License-Identifier: Apache-2.0
"""The package onnx, without its types: it is optional, and need not be there when this package is checked."""

from __future__ import annotations

import importlib
from typing import Any

onnx: Any = importlib.import_module("onnx")
for _name in ("checker", "helper", "numpy_helper", "external_data_helper", "shape_inference"):
    importlib.import_module(f"onnx.{_name}")

# The default operator set has two names.
DEFAULT_DOMAINS = ("", "ai.onnx")


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, as Python has them; of those that refer to a function's, none."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}


def is_a(node: Any, *op_types: str) -> bool:
    """True if a node is one of these operators of the default set."""
    return node.op_type in op_types and node.domain in DEFAULT_DOMAINS


def opset_of(imports: Any) -> int:
    """The version of the default operator set that a model or a function imports; 1 if it does not say."""
    return max((int(each.version) for each in imports if each.domain in DEFAULT_DOMAINS), default=1)
