# SPDX-License-Identifier: Apache-2.0
"""Batch norms of ONNX models folded: the same numbers by ONNX Runtime, and those left that have to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import CASES
from onnx_making import Case, Maker, X, node, norm, onnx, operators
from onnx_runs import drawn, near_enough, run, run_by_reference

from batchnorm.onnx_files import Constants, fold_model


def folded(model: Any, **told: Any) -> tuple[Any, Any]:
    """A copy that is folded, and the report."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy, **told)
    onnx.checker.check_model(copy, full_check=True)
    return copy, report


def norms(model: Any) -> int:
    return operators(model).split().count("BN")


@pytest.mark.parametrize("name", CASES)
def test_case(rng: np.random.Generator, name: str) -> None:
    case: Case = CASES[name](Maker(rng))
    copy, report = folded(case.model)
    assert operators(copy) == case.operators
    assert len(report.left) == len(case.reasons)
    for (_, reason), part in zip(report.left, case.reasons):
        assert part in reason
    gone = operators(case.model).count("BN") - operators(copy).count("BN")
    assert len(report.folded) == gone + (name in ("written_out_alone", "scaled_and_shifted_behind_a_bias"))
    if name not in NOT_RUN:
        given = drawn(rng, case.model)
        near_enough(run(case.model, given), run(copy, given))
    if operators(case.model) == operators(copy):
        assert copy == case.model
    assert not unused_constants(copy) - unused_constants(case.model)


# ONNX Runtime has no training, negative variances are NaN, and a shape is missing.
NOT_RUN = {"in_training", "matmul_of_unknown_rank", "variance_that_is_negative"}


def unused_constants(model: Any) -> set[str]:
    used = {name for each in model.graph.node for name in each.input} | {each.name for each in model.graph.output}
    return {each.name for each in model.graph.initializer} - used


OF_HALVES = "conv", "conv_transpose_with_groups", "gemm_scaled_and_transposed", "before_gemm"
OF_DOUBLES = "conv", "gemm_scaled_and_transposed", "before_gemm", "before_dense_of_keras"
TYPES = [*(("float16", name) for name in OF_HALVES), *(("float64", name) for name in OF_DOUBLES)]


@pytest.mark.parametrize(("dtype", "name"), TYPES)
def test_types(rng: np.random.Generator, name: str, dtype: str) -> None:
    case = CASES[name](Maker(rng, dtype))
    copy, _ = folded(case.model)
    assert operators(copy) == case.operators
    kind = case.model.graph.initializer[0].data_type
    assert {each.data_type for each in copy.graph.initializer} == {kind}
    given = drawn(rng, case.model)
    compute = run_by_reference if (dtype, name) == ("float64", "conv") else run
    near_enough(compute(case.model, given), compute(copy, given))


@pytest.mark.parametrize("params", ["float32", "bfloat16"])
def test_bfloat16(rng: np.random.Generator, params: str) -> None:
    """Weights of bfloat16 and, since opset 15, parameters of another type."""
    m = Maker(rng)
    types = dict.fromkeys(("x", "w", "a", "y"), onnx.TensorProto.BFLOAT16)
    types |= dict.fromkeys("gbmv", onnx.TensorProto.FLOAT if params == "float32" else onnx.TensorProto.BFLOAT16)
    arrays = {"w": m.w(6, 4), "a": m.w(6), **m.params(6)}
    cast = {name: values.astype(onnx.helper.tensor_dtype_to_np_dtype(types[name])) for name, values in arrays.items()}
    graph = onnx.helper.make_graph(
        [node("Gemm", ["x", "w", "a"], ["c"], transB=1), norm("c", "y")],
        "graph",
        [onnx.helper.make_tensor_value_info("x", types["x"], [3, 4])],
        [onnx.helper.make_tensor_value_info("y", types["y"], [3, 6])],
        [onnx.numpy_helper.from_array(values, name) for name, values in cast.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    copy, report = folded(model)
    assert operators(copy) == "Gemm"
    assert not report.left
    scale = arrays["g"] / np.sqrt(arrays["v"] + 1e-5) if params == "float32" else None
    found = {each.name: onnx.numpy_helper.to_array(each) for each in copy.graph.initializer}
    assert found["w"].dtype == cast["w"].dtype
    if scale is not None:  # rounded once
        exact = (
            cast["w"].astype(np.float64)
            * (arrays["g"].astype(np.float64) / np.sqrt(arrays["v"].astype(np.float64) + float(np.float32(1e-5))))[
                :, None
            ]
        )
        assert (abs(found["w"].astype(np.float64) - exact) <= 2.0**-8 * abs(exact)).all()
    given = drawn(rng, model)
    near_enough(run_by_reference(model, given), run_by_reference(copy, given), units=8)


def test_what_float16_cannot_hold_is_left(rng: np.random.Generator) -> None:
    m = Maker(rng, np.float16)
    params = m.params(6)
    params["v"][:], params["g"][2] = 1e-3, 6e4
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    model = m.model(nodes, {"w": m.w(6, 4, 3, 3), **params}, [2, 4, 9, 9])
    copy, report = folded(model)
    assert copy == model
    assert "which float16 cannot hold" in report.left[0][1]


def test_what_float16_cannot_hold_is_not_taken_up(rng: np.random.Generator) -> None:
    """A batch norm with a scale behind it that would make its gamma infinite."""
    m = Maker(rng, np.float16)
    params = {**m.params(4), "g": np.full(4, 100, np.float16), "v": np.ones(4, np.float16)}
    nodes = [norm("x", "c"), node("Mul", ["c", "s"], ["d"]), node("Relu", ["d"], ["y"])]
    for scale, expected in ((1000, "BN Mul Relu"), (100, "BN Relu")):
        model = m.model(nodes, {"s": np.full((4, 1, 1), scale, np.float16), **params}, [2, 4, 9, 9])
        copy, report = folded(model)
        assert operators(copy) == expected
        assert (copy == model) == (not report.merged)
        assert [name for name, _ in report.left] == ["norm"]


def test_a_layer_whose_weights_became_smaller(rng: np.random.Generator) -> None:
    """The second batch norm would make the weight of the Conv infinite, unless the first one has made it small."""
    m = Maker(rng, np.float16)
    params = {**m.params(4, "p", shift=False), **m.params(6, "q", shift=False)}
    params.update(pv=np.ones(4, np.float16), qv=np.ones(6, np.float16))
    params.update(pg=np.full(4, 0.01, np.float16), qg=np.full(6, 100, np.float16))
    nodes = [norm("x", "a", "p"), node("Conv", ["a", "w"], ["c"]), norm("c", "y", "q")]
    model = m.model(nodes, {"w": np.full((6, 4, 1, 1), 1000, np.float16), **params}, X)
    copy, report = folded(model)
    assert operators(copy) == "Conv"
    assert sorted(each.name for each in report.folded) == ["normp", "normq"]
    assert not report.left
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))


def test_batched_matrices_are_left(rng: np.random.Generator) -> None:
    m = Maker(rng)
    nodes = [node("MatMul", ["x", "w"], ["c"]), norm("c", "y")]
    model = m.model(nodes, {"w": m.w(2, 3, 6), **m.params(4)}, [2, 4, 3])
    copy, report = folded(model)
    assert copy == model
    assert report.left == [("norm", "the weight of MatMul 'c' has shape (2, 3, 6), expected two axes")]


def test_a_domain_without_an_opset(rng: np.random.Generator) -> None:
    """ONNX infers no shape for such a model; layers that need no shape are folded all the same."""
    m = Maker(rng)
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y"), node("MatMul", ["y", "u"], ["p"]), norm("p", "z", "q")]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(7, 7), **m.params(6), **m.params(6, "q")}
    model = m.model(nodes, arrays, X, outputs=["z"])
    model.graph.node.append(node("Mine", ["z"], ["mine"], domain="mine"))
    with pytest.raises(Exception, match="No opset import for domain mine"):
        onnx.shape_inference.infer_shapes(model)
    report = fold_model(model)
    assert [each.name for each in report.folded] == ["norm"]
    assert report.left == [("normq", "the shape of what goes into MatMul 'p' is not known")]


@pytest.mark.parametrize("name", ["weight_that_may_be_overridden", "all_that_may_be_overridden_as_in_old_files"])
def test_overridable(rng: np.random.Generator, name: str) -> None:
    model = CASES[name](Maker(rng)).model
    copy, report = folded(model, overridable=True)
    assert operators(copy) == "Conv"
    assert not report.left
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))
    names = {each.name for each in copy.graph.initializer}
    inputs = {each.name for each in copy.graph.input}
    assert inputs == ({"x", *names} if model.ir_version < 4 else {"x", "w"})


def test_keep(rng: np.random.Generator) -> None:
    model = CASES["between_convs"](Maker(rng)).model
    for name in ("norm", "d"):  # the node and its output
        copy, report = folded(model, keep=[name])
        assert operators(copy) == "Conv BN Conv"
        assert report.left == [("norm", "it is to be kept")]
    with pytest.raises(ValueError, match="no batch norm is called 'nothing'"):
        folded(model, keep=["nothing", "norm"])


def test_numbers_are_rounded_once(rng: np.random.Generator) -> None:
    m = Maker(rng)
    arrays = {"w": m.w(6, 4, 3, 3), "a": m.w(6), **m.params(6), **m.params(6, "q")}
    nodes = [node("Conv", ["x", "w", "a"], ["c"]), norm("c", "d"), norm("d", "y", "q", epsilon=0.25)]
    copy, _ = folded(m.model(nodes, arrays, [2, 4, 9, 9]))
    wide = {name: values.astype(np.longdouble) for name, values in arrays.items()}
    weight, bias = wide["w"], wide["a"]
    for prefix, eps in (("", float(np.float32(1e-5))), ("q", 0.25)):
        scale = wide[f"{prefix}g"] / np.sqrt(wide[f"{prefix}v"] + eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - wide[f"{prefix}m"]) * scale + wide[f"{prefix}b"]
    found = {each.name: onnx.numpy_helper.to_array(each) for each in copy.graph.initializer}
    assert np.array_equal(found["w"], weight.astype(np.float32))
    assert (abs(found["a"] - bias) <= 2.0**-23 * (abs(bias) + 1e-6)).all()


def test_names_that_are_taken(rng: np.random.Generator) -> None:
    """A new tensor has a name that nothing has, in no subgraph either, and the same one each time."""
    m = Maker(rng)
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        norm("c", "d"),
        node("Conv", ["d", "w"], ["w_folded"]),
        node("Relu", ["w_folded"], ["y"]),
    ]
    model = m.model(nodes, {"w": m.w(4, 4, 3, 3), **m.params(4)}, [2, 4, 9, 9])
    model.graph.node[0].name = "d_bias"
    copy, _ = folded(model)
    again, _ = folded(model)
    assert copy.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert {each.name for each in copy.graph.initializer} == {"w", "w_folded_2", "d_bias_bias"}
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))


def test_what_a_model_says_of_itself_stays(rng: np.random.Generator) -> None:
    model = CASES["conv"](Maker(rng)).model
    model.producer_name, model.doc_string, model.graph.doc_string = "someone", "about", "inside"
    onnx.helper.set_model_props(model, {"key": "value"})
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", 1, None))
    copy, _ = folded(model)
    assert not copy.graph.value_info  # of a tensor that is no more
    for field in ("node", "initializer", "value_info"):
        model.graph.ClearField(field)
        copy.graph.ClearField(field)
    assert copy == model


def test_training_information(rng: np.random.Generator) -> None:
    model = CASES["between_convs"](Maker(rng)).model
    model.training_info.add().update_binding.add(key="w", value="w")
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    assert copy == model
    assert [name for name, _ in report.left] == ["normp", "norm", "normq"]


@pytest.mark.parametrize(("variance", "epsilon"), [(0, 0.0), (-1, 1.0)])
def test_a_division_by_zero_is_left(rng: np.random.Generator, variance: float, epsilon: float) -> None:
    """The library makes beta of it, and ONNX Runtime what is not finite."""
    m = Maker(rng)
    params = m.params(3)
    params["v"][1] = variance
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y", epsilon=epsilon)]
    model = m.model(nodes, {"w": m.w(3, 2, 1, 1), **params}, [1, 2, 3, 3])
    copy, report = folded(model)
    assert copy == model
    assert report.left == [("norm", "its variance + epsilon is 0 somewhere, by which the operator divides")]


@pytest.mark.parametrize("shape", [(), (1,), (1, 3), (3,)])
def test_a_bias_that_is_declared_with_its_shape(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Old files have each constant as an input as well, with the shape that it had."""
    m = Maker(rng)
    nodes = [node("Gemm", ["x", "w", "a"], ["c"]), norm("c", "y")]
    arrays = {"w": m.w(4, 3), "a": np.asarray(m.w(*shape)), **m.params(3)}
    model = m.model(nodes, arrays, [2, 4], opset=9, ir=3)
    copy, report = folded(model, overridable=True)
    assert operators(copy) == "Gemm"
    assert not report.left
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))


def test_nodes_that_go_in_circles(rng: np.random.Generator) -> None:
    """No model that onnx.checker takes; following it would not end."""
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in Maker(rng).params(3).items()]
    for nodes in ([norm("a", "n"), node("Identity", ["n"], ["a"])], [norm("n", "n")]):
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [], tensors))
        with pytest.raises(ValueError, match="before it is made"):
            fold_model(model)


def test_two_nodes_that_make_one_tensor(rng: np.random.Generator) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"]), node("Relu", ["z"], ["y"])]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], []))
    with pytest.raises(ValueError, match="^'y' is taken by Identity before it is made, or is made twice$"):
        fold_model(model)


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [("Gemm", [(4, 3), (2,)]), ("Gemm", [(4, 3), (0,)]), ("Gemm", [(3,)]), ("Gemm", [()]), ("Conv", [(3,)]),
     ("ConvTranspose", [(3,)]), ("MatMul", [(3,)])],
)  # fmt: skip
def test_weights_of_other_shapes_are_left(
    rng: np.random.Generator, operator: str, shapes: list[tuple[int, ...]]
) -> None:
    """No model that runs, but one that onnx.checker takes."""
    names = "wa"[: len(shapes)]
    arrays = {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in zip(names, shapes)}
    for nodes in (
        [node(operator, ["x", *names], ["c"]), norm("c", "y")],
        [norm("x", "c"), node(operator, ["c", *names], ["y"])],
    ):
        tensors = [onnx.numpy_helper.from_array(a, n) for n, a in {**arrays, **Maker(rng).params(3)}.items()]
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [], tensors))
        [(_, reason)] = fold_model(model).left
        assert "has shape" in reason


def test_numbers_that_an_integer_does_not_hold_are_no_constants() -> None:
    tensor = onnx.numpy_helper.from_array(np.float32([1e10, np.nan]), "a")
    cast = node("Cast", ["a"], ["b"], to=onnx.TensorProto.INT32)
    assert Constants(onnx.GraphProto(node=[cast], initializer=[tensor])).get("b") is None
