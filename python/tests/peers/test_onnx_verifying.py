# SPDX-License-Identifier: Apache-2.0
"""Folded models compared with what they were: what is verified, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_commands import names, refused, save, small, value
from onnx_graphs import CASES
from onnx_making import Maker, node, norm, onnx

from batchnorm.cli import main
from batchnorm.onnx_files import verify


@pytest.fixture
def source(rng: np.random.Generator, tmp_path: Path) -> Path:
    return save(CASES["between_convs"](Maker(rng)).model, tmp_path / "in.onnx")


def test_a_model_that_differs_is_not_written(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in folding, such as this one, is seen by --verify."""
    folding = __import__("batchnorm.onnx_files.after", fromlist=["composed"])
    right = folding.composed
    monkeypatch.setattr(folding, "composed", lambda steps: right(steps)._replace(shift=right(steps).shift + 0.01))
    target = source.with_name("out.onnx")
    said = refused(capsys, "fold", source, target, "--verify")
    assert "the folded model differs by" in said
    assert names(source) == ["in.onnx"]
    assert main(["fold", str(source), str(target)]) == 0  # unseen


def test_what_verifying_needs(rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Maker(rng)
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    model = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, ["batch", 4, "height", 9])
    source, target = save(model, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    said = refused(capsys, "fold", source, target, "--verify")
    assert said == "input 'x' has shape batch,4,height,9, expected numbers: --shape x=... gives them"
    assert "has no input 'z'" in refused(capsys, "fold", source, target, "--verify", "--shape", "z=1")
    assert "ONNX Runtime cannot run" in refused(capsys, "fold", source, target, "--verify", "--shape", "x=1,4,1,9")
    assert not target.exists()
    assert main(["fold", str(source), str(target), "--verify", "--shape", "x=1,4,5,9"]) == 0
    for wrong in ("x", "x=1,a", "=1"):
        with pytest.raises(SystemExit, match="2"):
            main(["fold", str(source), str(target), "--shape", wrong])


def test_vacuous_comparisons(rng: np.random.Generator) -> None:
    m = Maker(rng)
    params = m.params(6)
    dead = {**m.params(6, "q"), "qb": np.full(6, -100, np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c1"]),
        norm("c1", "d"),
        node("Conv", ["d", "u"], ["c2"]),
        norm("c2", "f", "q"),
        node("Relu", ["f"], ["zero"]),
        node("Conv", ["zero", "u"], ["c3"]),
        norm("c3", "y", "r"),
    ]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(6, 6, 1, 1), **params, **dead, **m.params(6, "r")}
    model = m.model(nodes, arrays, [2, 4, 5, 5], outputs=["y", "zero"])
    found = verify(model, model, ["d", "f", "gone"], inputs=1)
    assert list(found.errors) == ["y", "zero", "d", "f"]
    assert found.vacuous == {
        "y": "does not depend on the input",
        "zero": "is 0 everywhere",
        "f": "goes into a Relu that lets nothing of it through",
    }
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(params["g"] * np.inf, "g"))
    found = verify(model, model, ["d"], inputs=1)
    assert found.vacuous["d"] == "is not finite"


def test_verifying_indices_and_shapes() -> None:
    """Outputs that are whole numbers differ in a share of their elements; those of other shapes altogether."""
    outputs = [value("index", ["n"], onnx.TensorProto.INT64), value("y", ["n", "m"])]
    first = small([node("ArgMax", ["x"], ["index"], axis=1, keepdims=0), node("Relu", ["x"], ["y"])], outputs)
    other = small(
        [node("ArgMin", ["x"], ["index"], axis=1, keepdims=0), node("ReduceMax", ["x"], ["y"], axes=[1])], outputs
    )
    assert verify(first, first, []).errors == {"index": 0, "y": 0}
    found = verify(first, other, [])
    assert found.errors == found.too_far == {"index": 1, "y": float("inf")}
    wide = small(
        [node("ArgMax", ["x"], ["index"], axis=1, keepdims=1)], [value("index", ["n", 1], onnx.TensorProto.INT64)]
    )
    assert verify(first, wide, []).errors == {"index": float("inf")}


def test_verifying_what_is_empty() -> None:
    outputs = [value("y", ["n", 4]), value("index", ["n"], onnx.TensorProto.INT64)]
    nodes = [node("Slice", ["x", "s", "s"], ["y"]), node("ArgMax", ["y"], ["index"], axis=1, keepdims=0)]
    model = small(nodes, outputs, s=[0])
    found = verify(model, model, [])
    assert found.errors == {"y": 0, "index": 0}
    assert found.vacuous == {"y": "is empty", "index": "is empty"}


def test_models_that_cannot_be_verified(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input of texts, and an operator that ONNX Runtime has not for this type."""
    m = Maker(rng)
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    nodes = [norm("x", "c"), node("Cast", ["words"], ["d"], to=1), node("Add", ["c", "d"], ["y"])]
    save(m.model(nodes, m.params(4), [2, 4], inputs=[value("words", [2, 4], onnx.TensorProto.STRING)]), source)
    said = refused(capsys, "fold", source, target, "--verify")
    assert said == "input 'words' is a tensor(string), of which none can be drawn"
    short = onnx.TensorProto.INT16
    nodes = [norm("x", "c"), node("Cast", ["c"], ["d"], to=short), node("Relu", ["d"], ["e"])]
    save(m.model([*nodes, node("Cast", ["e"], ["y"], to=1)], m.params(4), [2, 4]), source)
    said = refused(capsys, "fold", source, target, "--verify")
    assert said.startswith("ONNX Runtime does not take the model: ")
    assert "Could not find an implementation for Relu" in said
    monkeypatch.setattr("batchnorm.onnx_files.running.MOST_BYTES", 10)
    said = refused(capsys, "fold", source, target, "--verify")
    assert said == "the model is larger than 2 GB, which is more than can be run with outputs from within"
    assert not target.exists()
