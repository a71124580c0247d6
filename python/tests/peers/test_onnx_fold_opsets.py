# SPDX-License-Identifier: Apache-2.0
"""Batch norms of every opset folded: attributes that came and went."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Array, peer
from onnx_making import Maker, node, norm, onnx, operators
from onnx_runs import drawn, near_enough, run, run_by_reference

from batchnorm.onnx_files import fold_model

runtime = peer("onnxruntime")
OPSETS = range(1, onnx.defs.onnx_opset_version() + 1)
OF_RUNTIME = range(7, 22)


def told(opset: int) -> dict[str, Any]:
    """The attributes by which a batch norm is one in inference."""
    given: dict[str, Any] = {"is_test": 1} if opset < 7 else {}
    if opset < 6:
        given["consumed_inputs"] = [0, 0, 0, 1, 1]
    return given | ({"spatial": 1} if opset < 9 else {})


def old(opset: int) -> dict[str, Any]:
    """The attributes by which an Add or a Gemm broadcasts."""
    return {"broadcast": 1} if opset < 7 else {}


def numbers(model: Any, given: dict[str, Array]) -> list[Array]:
    """Runs a model in ONNX Runtime if that knows the opset, else in the reference."""
    opset = model.opset_import[0].version
    return (run if opset in OF_RUNTIME else run_by_reference)(model, given)


@pytest.mark.parametrize("opset", OPSETS)
def test_layers(rng: np.random.Generator, opset: int) -> None:
    """Conv, Gemm, and MatMul with Add, each with a batch norm before it and one after it."""
    m = Maker(rng)
    flags, broadcast = told(opset), old(opset)
    arrays = {
        "cw": m.w(5, 4, 3, 3), "gw": m.w(6, 45), "ga": m.w(6), "mw": m.w(6, 3), "ma": m.w(3),
        "t": m.w(5) if opset < 7 else m.w(5, 1, 1),
        **m.params(4, "1"), **m.params(5, "2"), **m.params(45, "3"), **m.params(6, "4"),
        **m.params(6, "5"), **m.params(3, "6"),
    }  # fmt: skip
    axis = {"axis": 1, "broadcast": 1} if opset < 7 else {}
    nodes = [
        norm("x", "b1", "1", **flags),
        node("Conv", ["b1", "cw"], ["k"]),
        node("Add", ["k", "t"], ["c"], **axis),
        norm("c", "b2", "2", **flags),
        node("Relu", ["b2"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        norm("f", "b3", "3", **flags),
        node("Gemm", ["b3", "gw", "ga"], ["g"], transB=1, **broadcast),
        norm("g", "b4", "4", **flags),
        node("Relu", ["b4"], ["q"]),
        norm("q", "b5", "5", **flags),
        node("MatMul", ["b5", "mw"], ["p"]),
        node("Add", ["p", "ma"], ["d"], **broadcast),
        norm("d", "y", "6", **flags),
    ]
    model = m.model(nodes, arrays, [2, 4, 5, 5], opset=opset, ir=8 if opset < 20 else 10)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    onnx.checker.check_model(copy, full_check=True)
    assert not report.left
    assert operators(copy) == "Conv Relu Flatten Gemm Relu MatMul Add"
    given = drawn(rng, model)
    expected = numbers(model, given) if opset >= 7 else [by_hand(arrays, given["x"])]
    if opset < 7:
        # Its operators, as they are from 7 on, which is what no attribute is needed for any more.
        assert all(each.i == 1 for n in copy.graph.node for each in n.attribute if each.name in ("broadcast", "transB"))
        assert [each.name for each in copy.graph.node[-1].attribute] == ["broadcast"]  # of the Add of the MatMul
        found = numbers(renewed(copy), given)
    else:
        found = numbers(copy, given)
    near_enough(expected, found, units=64)


def renewed(model: Any) -> Any:
    """The same model in opset 13, of one that has no batch norm."""
    model.opset_import[0].version = 13
    for each in model.graph.node:
        for index in reversed([i for i, a in enumerate(each.attribute) if a.name in ("broadcast", "axis")]):
            del each.attribute[index]
    return model


def by_hand(arrays: dict[str, Array], x: Array) -> Array:
    """The output of the layers, computed in float64."""
    a = {name: values.astype(np.float64) for name, values in arrays.items()}

    def normed(values: Array, prefix: str) -> Array:
        g, b, mean, var = (a[prefix + n].reshape(1, -1, *[1] * (values.ndim - 2)) for n in "gbmv")
        return (values - mean) / np.sqrt(var + float(np.float32(1e-5))) * g + b

    z = normed(x.astype(np.float64), "1")
    windows = np.lib.stride_tricks.sliding_window_view(z, (3, 3), axis=(2, 3))
    z = np.einsum("nchwij,ocij->nohw", windows, a["cw"]) + a["t"].reshape(-1, 1, 1)
    z = normed(np.maximum(normed(z, "2"), 0).reshape(len(x), -1), "3")
    z = normed(np.maximum(normed(z @ a["gw"].T + a["ga"], "4"), 0), "5")
    return np.asarray(normed(z @ a["mw"] + a["ma"], "6"), np.float32)


@pytest.mark.parametrize("opset", OPSETS)
def test_training(rng: np.random.Generator, opset: int) -> None:
    """In every opset there is a way to say that the statistics are the batch's own."""
    m = Maker(rng)
    flags = told(opset)
    if opset < 7:
        flags["is_test"] = 0
    elif opset < 14:
        flags["outputs"] = ["y", "m2", "v2", "sm", "sv"]
    else:
        flags |= {"outputs": ["y", "m2", "v2"], "training_mode": 1}
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y", **flags)]
    model = m.model(nodes, {"w": m.w(5, 4, 3, 3), **m.params(5)}, [2, 4, 5, 5], opset=opset)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    assert copy == model
    assert "takes the statistics of each batch" in report.left[0][1]


def test_a_bias_that_was_not_broadcast(rng: np.random.Generator) -> None:
    """Before opset 7 a bias of one number per output needs an attribute to be broadcast."""
    m = Maker(rng)
    nodes = [node("Gemm", ["x", "w", "a"], ["c"]), norm("c", "y", **told(6))]
    model = m.model(nodes, {"w": m.w(4, 6), "a": m.w(1, 6), **m.params(6)}, [1, 4], opset=6)
    fold_model(model)
    assert operators(model) == "Gemm"
    assert [(each.name, each.i) for each in model.graph.node[0].attribute] == [("broadcast", 1)]
    onnx.checker.check_model(model, full_check=True)


def test_a_bias_that_was_told_not_to_broadcast(rng: np.random.Generator) -> None:
    """The attribute is there already."""
    m = Maker(rng)
    nodes = [node("Gemm", ["x", "w", "a"], ["c"], broadcast=0), norm("c", "y", **told(6))]
    model = m.model(nodes, {"w": m.w(4, 6), "a": m.w(1, 6), **m.params(6)}, [1, 4], opset=6)
    fold_model(model)
    assert [(each.name, each.i) for each in model.graph.node[0].attribute] == [("broadcast", 1)]


@pytest.mark.parametrize(("axis", "added"), [(0, 2), (1, 1), (-1, 1), (None, 1)])
def test_an_add_along_another_axis_is_no_bias(rng: np.random.Generator, axis: int | None, added: int) -> None:
    """The matrix has as many rows as columns; no package at hand runs it."""
    m = Maker(rng)
    along = {} if axis is None else {"axis": axis}
    nodes = [
        norm("x", "n", **told(6)),
        node("MatMul", ["n", "w"], ["p"]),
        node("Add", ["p", "a"], ["y"], broadcast=1, **along),
    ]
    model = m.model(nodes, {"w": m.w(4, 4), "a": m.w(4), **m.params(4)}, [4, 4], opset=6)
    assert not fold_model(model).left
    assert operators(model) == "MatMul" + " Add" * added


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_statistics_for_each_position(rng: np.random.Generator, opset: int) -> None:
    m = Maker(rng)
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y", **{**told(opset), "spatial": 0})]
    model = m.model(nodes, {"w": m.w(5, 4, 3, 3), **m.params(5)}, [2, 4, 3, 3], opset=opset)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    assert copy == model
    assert "spatial=0" in report.left[0][1]
