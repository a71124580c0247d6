# SPDX-License-Identifier: Apache-2.0
"""Constants of a graph, and what is computed of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_making import node, onnx
from onnx_runs import run_by_reference

from batchnorm.onnx_files import Constants


def test_a_circle_of_constants() -> None:
    """No model that runs: `read_model` looks at no order."""
    graph = onnx.GraphProto(node=[node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"])])
    constants = Constants(graph)
    assert constants.get("a") is None
    assert constants.why_not("a") == "'a' is computed by Identity"
    own = Constants(onnx.GraphProto(node=[node("Identity", ["c"], ["c"])]))
    assert own.why_not("c") == "'c' is computed by Identity"


@pytest.mark.parametrize("damage", [{"data_type": 999}, {"dims": [3]}, {"raw_data": b"abc"}])
def test_a_damaged_constant(damage: dict[str, Any]) -> None:
    tensor = onnx.numpy_helper.from_array(np.float32([1, 2]), "w")
    for name, value in damage.items():
        if name == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, name, value)
    constants = Constants(onnx.GraphProto(initializer=[tensor]))
    assert constants.get("w") is None
    assert constants.why_not("w") == "'w' cannot be read"


def test_inputs_are_no_constants() -> None:
    given = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [2])
    constants = Constants(onnx.GraphProto(input=[given], node=[node("Identity", ["a"], ["b"])]))
    assert constants.get("b") is None
    assert constants.why_not("b") == "'a' is an input of the graph"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("value_float", 0.5, np.float32(0.5)),
        ("value_floats", [0.5, 2.0], np.float32([0.5, 2])),
        ("value_int", 3, np.int64(3)),
        ("value_ints", [3, 1], np.int64([3, 1])),
        ("value_string", "text", None),
        ("value_strings", ["text"], None),
    ],
)
def test_constants(name: str, value: Any, expected: Any) -> None:
    found = Constants(onnx.GraphProto(node=[node("Constant", [], ["a"], **{name: value})])).get("a")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)


COMPUTED: dict[str, tuple[int, Any]] = {
    "Transpose": (17, {}),
    "Transpose perm": (17, {"perm": [1, 2, 0]}),
    "Cast": (17, {"to": 11}),
    "Reshape": (17, [4, -1]),
    "Reshape with a length as it is": (17, [0, -1]),
    "Squeeze": (17, []),
    "Squeeze an axis": (17, [-2]),
    "Squeeze of opset 11": (11, {"axes": [1]}),
    "Unsqueeze": (17, [0, -1]),
    "Unsqueeze of opset 11": (11, {"axes": [0, 2]}),
    "Identity": (17, {}),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_of_constants(name: str, rng: np.random.Generator) -> None:
    """Constants agree with the reference of ONNX."""
    opset, told = COMPUTED[name]
    x = rng.normal(size=(2, 1, 4)).astype(np.float32)
    arrays = {"x": x} | ({"s": np.array(told, np.int64)} if isinstance(told, list) and told else {})
    made = node(name.split()[0], list(arrays), ["y"], **(told if isinstance(told, dict) else {}))
    stored = [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    graph = onnx.helper.make_graph([made], "graph", [], [output], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    [expected] = run_by_reference(model, {})
    found = Constants(graph).get("y")
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_shape_that_is_an_attribute() -> None:
    """Opsets before 5 have it, which the reference does not know."""
    stored = onnx.numpy_helper.from_array(np.arange(8.0).reshape(2, 1, 4), "x")
    graph = onnx.GraphProto(node=[node("Reshape", ["x"], ["y"], shape=[0, 2, 2])], initializer=[stored])
    np.testing.assert_array_equal(Constants(graph).get("y"), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]])


def test_an_empty_array_reshaped() -> None:
    """With allowzero a 0 is a length, and else the length that there was."""
    stored = [
        onnx.numpy_helper.from_array(np.zeros((0, 3), np.float32), "x"),
        onnx.numpy_helper.from_array(np.array([3, 0]), "s"),
    ]
    shapes = []
    for told in ({"allowzero": 1}, {}):
        found = Constants(onnx.GraphProto(node=[node("Reshape", ["x", "s"], ["y"], **told)], initializer=stored))
        array = found.get("y")
        shapes.append(None if array is None else array.shape)
    assert shapes == [(3, 0), None]


def test_fills_that_ask_for_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried with a smaller limit."""
    monkeypatch.setattr("batchnorm.onnx_files.constants.MOST_ELEMENTS", 8)
    for shape, there in (([2, 4], True), ([3, 3], False)):
        stored = onnx.numpy_helper.from_array(np.array(shape), "s")
        graph = onnx.GraphProto(node=[node("ConstantOfShape", ["s"], ["y"])], initializer=[stored])
        assert (Constants(graph).get("y") is not None) == there


def test_a_chain_without_end() -> None:
    names = [str(i) for i in range(5000)]
    graph = onnx.GraphProto(node=[node("Identity", [a], [b]) for a, b in zip(names[1:], names)])
    constants = Constants(graph)
    assert constants.get("0") is None
    assert constants.why_not("0") == "'4999' is no constant"
