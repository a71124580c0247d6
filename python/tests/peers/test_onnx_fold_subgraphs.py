# SPDX-License-Identifier: Apache-2.0
"""Batch norms in the bodies of If and Loop, and around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx_making import Maker, node, norm, onnx, operators
from onnx_runs import drawn, near_enough, run

from batchnorm.onnx_files import fold_model, verify

FLOAT, BOOL, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
value = onnx.helper.make_tensor_value_info


def body(nodes: Sequence[Any], output: str, name: str, tensors: Sequence[Any] = ()) -> Any:
    return onnx.helper.make_graph(nodes, name, [], [value(output, FLOAT, None)], tensors)


def choice(maker: Maker, then: Any, otherwise: Any, *outer: Any, **arrays: Any) -> Any:
    nodes = [*outer, node("If", ["which"], ["y"], then_branch=then, else_branch=otherwise, name="if")]
    return maker.model(nodes, arrays, [2, 4, 5, 5], inputs=[value("which", BOOL, [])])


def folded(model: Any) -> tuple[Any, Any]:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy, report


def branches(model: Any) -> list[str]:
    bodies = {a.name: a.g for each in model.graph.node for a in each.attribute}
    found = [bodies["then_branch"], bodies["else_branch"]]
    return [" ".join(n.op_type for n in g.node).replace("BatchNormalization", "BN") for g in found]


def both_ways(rng: np.random.Generator, model: Any, copy: Any) -> None:
    for which in (True, False):
        given = {**drawn(rng, model), "which": np.array(which)}
        near_enough(run(model, given), run(copy, given))


def test_both_within_with_a_weight_from_outside(rng: np.random.Generator) -> None:
    """The weight is of both branches: the first folded one gets a copy, and the last one takes it over."""
    m = Maker(rng)
    then = body([node("Conv", ["x", "w"], ["c"]), norm("c", "a")], "a", "then")
    otherwise = body([node("Conv", ["x", "w"], ["c"]), norm("c", "d", "q"), node("Relu", ["d"], ["e"])], "e", "else")
    model = choice(m, then, otherwise, w=m.w(6, 4, 3, 3), **m.params(6), **m.params(6, "q"))
    copy, report = folded(model)
    assert branches(copy) == ["Conv", "Conv Relu"]
    assert report.within == 2
    assert not report.tensors
    assert [each.name for each in copy.graph.initializer] == []  # all of them are within now
    both_ways(rng, model, copy)
    found = verify(model, copy, report.tensors, inputs=2)
    assert list(found.errors) == ["y"]


def test_within_and_outside(rng: np.random.Generator) -> None:
    m = Maker(rng)
    then = body([node("Conv", ["d", "u"], ["e"]), norm("e", "a", "q")], "a", "then")
    otherwise = body([node("Conv", ["d", "u"], ["f"])], "f", "else")
    outer = [node("Conv", ["x", "w"], ["c"]), norm("c", "d")]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(5, 6, 1, 1), **m.params(6), **m.params(5, "q")}
    model = choice(m, then, otherwise, *outer, **arrays)
    copy, report = folded(model)
    assert not report.left
    assert operators(copy) == "Conv If"
    assert branches(copy) == ["Conv", "Conv"]
    both_ways(rng, model, copy)


def test_constants_within(rng: np.random.Generator) -> None:
    m = Maker(rng)
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in {"w": m.w(6, 4, 3, 3), **m.params(6)}.items()]
    then = body([node("Conv", ["x", "w"], ["c"]), norm("c", "a")], "a", "then", tensors)
    constant = node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(m.w(2, 6, 3, 3)))
    otherwise = body([constant, node("Identity", ["k"], ["e"])], "e", "else")
    model = choice(m, then, otherwise)
    copy, _ = folded(model)
    assert branches(copy) == ["Conv", "Constant Identity"]
    both_ways(rng, model, copy)


def test_a_layer_outside(rng: np.random.Generator) -> None:
    """A tensor that the body takes from outside is in use, and must not change."""
    m = Maker(rng)
    then = body([norm("c", "a")], "a", "then")
    otherwise = body([node("Relu", ["c"], ["e"])], "e", "else")
    model = choice(m, then, otherwise, node("Conv", ["x", "w"], ["c"]), w=m.w(6, 4, 3, 3), **m.params(6))
    copy, report = folded(model)
    assert copy == model
    assert "no layer is beside it" in report.left[0][1]


def test_a_layer_whose_output_a_body_takes(rng: np.random.Generator) -> None:
    m = Maker(rng)
    then = body([node("Relu", ["c"], ["a"])], "a", "then")
    otherwise = body([node("Relu", ["d"], ["e"])], "e", "else")
    outer = [node("Conv", ["x", "w"], ["c"]), norm("c", "d")]
    model = choice(m, then, otherwise, *outer, w=m.w(6, 4, 3, 3), **m.params(6))
    copy, report = folded(model)
    assert copy == model
    assert "the output of Conv 'c' is used in a subgraph as well" in report.left[0][1]


def test_a_norm_whose_output_a_body_takes(rng: np.random.Generator) -> None:
    m = Maker(rng)
    then = body([node("Relu", ["d"], ["a"])], "a", "then")
    otherwise = body([node("Sigmoid", ["d"], ["e"])], "e", "else")
    outer = [node("Conv", ["x", "w"], ["c"]), norm("c", "d")]
    model = choice(m, then, otherwise, *outer, w=m.w(6, 4, 3, 3), **m.params(6))
    copy, report = folded(model)
    assert operators(copy) == "Conv If"  # its name stays
    assert not report.left
    both_ways(rng, model, copy)


def test_a_norm_whose_output_a_body_takes_before_a_layer(rng: np.random.Generator) -> None:
    m = Maker(rng)
    then = body([node("Conv", ["d", "w"], ["a"])], "a", "then")
    otherwise = body([node("Conv", ["d", "w"], ["e"], strides=[2, 2])], "e", "else")
    model = choice(m, then, otherwise, norm("x", "d"), w=m.w(6, 4, 3, 3), **m.params(4))
    copy, report = folded(model)
    assert copy == model
    assert "its output is used in a subgraph" in report.left[0][1]


def test_two_deep(rng: np.random.Generator) -> None:
    m = Maker(rng)
    deep = body([node("Conv", ["x", "w"], ["c"]), norm("c", "a")], "a", "deep")
    other = body([node("Conv", ["x", "w"], ["b0"])], "b0", "other")
    then = body([node("If", ["which"], ["t"], then_branch=deep, else_branch=other)], "t", "then")
    otherwise = body([node("Conv", ["x", "w"], ["e"])], "e", "else")
    model = choice(m, then, otherwise, w=m.w(6, 4, 3, 3), **m.params(6))
    copy, report = folded(model)
    assert not report.left
    assert [each.name for each in copy.graph.initializer] == ["w"]
    both_ways(rng, model, copy)


@pytest.mark.parametrize("shared", [False, True])
def test_loop(rng: np.random.Generator, shared: bool) -> None:
    """The state of a loop is no constant; weights are those of every turn."""
    m = Maker(rng)
    nodes = [
        node("Conv", ["state", "w"], ["c"], pads=[1] * 4),
        norm("c", "d"),
        node("Tanh", ["d"], ["next"]),
        node("Identity", ["go"], ["on"]),
    ]
    inputs = [value("i", INT64, []), value("go", BOOL, []), value("state", FLOAT, [2, 4, 5, 5])]
    outputs = [value("on", BOOL, []), value("next", FLOAT, [2, 4, 5, 5])]
    if shared:  # the results of each turn are an output as well
        nodes.append(node("Identity", ["c"], ["seen"]))
        outputs.append(value("seen", FLOAT, [2, 4, 5, 5]))
    loop = onnx.helper.make_graph(nodes, "loop", inputs, outputs)
    made = ["y", "z"] if shared else ["y"]
    arrays = {"w": m.w(4, 4, 3, 3), "n": np.array(3), "t": np.array(True), **m.params(4)}
    model = m.model([node("Loop", ["n", "t", "x"], made, body=loop)], arrays, [2, 4, 5, 5], outputs=made)
    copy, report = folded(model)
    assert len(report.left) == shared
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))
