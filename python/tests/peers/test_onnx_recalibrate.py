# SPDX-License-Identifier: Apache-2.0
"""`batchnorm recalibrate`: the statistics of all that reaches a batch norm, beside NumPy's in float64."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array
from onnx_graphs import CASES
from onnx_making import Maker, node, norm, onnx
from onnx_runs import run

from batchnorm.cli import main
from batchnorm.onnx_files import recalibrate_model


def with_outputs(model: Any, names: list[str]) -> Any:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def statistics(model: Any, data: dict[str, Array]) -> None:
    """Each batch norm's numbers are those of what goes into it, all samples at once."""
    norms = [each for each in model.graph.node if each.op_type == "BatchNormalization"]
    names = list(dict.fromkeys(each.input[0] for each in norms))
    open_batch = with_outputs(model, [name for name in names if name != "x"])
    seen = run(open_batch, data)[len(model.graph.output) :]
    values = dict(zip([name for name in names if name != "x"], seen)) | data
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for each in norms:
        x = values[each.input[0]].astype(np.float64)
        axes = (0, *range(2, x.ndim))
        std = x.std(axes)
        assert (abs(stored[each.input[3]] - x.mean(axes)) <= 1e-5 * (std + abs(x.mean(axes)))).all(), each.name
        assert (abs(stored[each.input[4]] - std**2) <= 1e-5 * std**2).all(), each.name


def network(rng: np.random.Generator, batch: Any = "batch") -> Any:
    """Batch norms in a row, and two beside one another, with numbers in common."""
    m = Maker(rng)
    nodes = [
        norm("x", "a"),
        node("Conv", ["a", "w"], ["c"], pads=[1] * 4),
        norm("c", "d", "q"),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["a", "u"], ["f"]),
        norm("f", "h", "q"),
        node("Add", ["e", "h"], ["i"]),
        norm("i", "y", "r"),
    ]
    nodes[5].name = "beside"
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(6, 4, 1, 1)}
    arrays |= {**m.params(4), **m.params(6, "q"), **m.params(6, "r")}
    return m.model(nodes, arrays, [batch, 4, 5, 5])


@pytest.mark.parametrize("batch", [None, 1, 7, 100])
def test_statistics(rng: np.random.Generator, batch: int | None) -> None:
    model = network(rng)
    data = {"x": (rng.normal(3, 2, (23, 4, 5, 5)) * rng.uniform(0.1, 5, (23, 1, 1, 1))).astype(np.float32)}
    result = recalibrate_model(model, data, batch=batch)
    onnx.checker.check_model(model)
    statistics(model, data)
    assert [each.name for each in result.norms] == ["norm", "normq", "beside", "normr"]
    assert (result.samples, result.passes) == (23, 3)
    assert {each.values for each in result.norms} == {23 * 25}
    assert [each.parted for each in result.norms] == [False, True, False, False]
    y = run(model, data)[0]
    gamma, beta = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name in ("rg", "rb"))
    assert np.allclose(y.mean((0, 2, 3)), beta, atol=1e-4)
    assert np.allclose(y.std((0, 2, 3)), abs(gamma), rtol=1e-3)


def test_what_is_told(rng: np.random.Generator) -> None:
    m = Maker(rng)
    params = {**m.params(4), "m": np.zeros(4, np.float32), "v": np.ones(4, np.float32)}
    model = m.model([norm("x", "y", epsilon=0.5)], params, ["batch", 4])
    x = np.array([[0, 0, 0, 3], [2, 0, 0, 3]], np.float32)
    result = recalibrate_model(model, {"x": x})
    assert result.norms[0].moved == pytest.approx(3 / np.sqrt(1.5))
    assert result.norms[0].spread == pytest.approx((1 / 3, 1))


def test_types(rng: np.random.Generator) -> None:
    """float16 has its own limits: a variance beyond them is told."""
    m = Maker(rng, np.float16)
    model = m.model([norm("x", "y")], m.params(4), ["batch", 4])
    x = rng.normal(2, 3, (50, 4)).astype(np.float16)
    recalibrate_model(model, {"x": x})
    mean = onnx.numpy_helper.to_array(next(each for each in model.graph.initializer if each.name == "m"))
    assert mean.dtype == np.float16
    assert np.array_equal(mean, x.astype(np.float64).mean(0).astype(np.float16))
    with pytest.raises(ValueError, match="the variance of batch norm 'norm' becomes"):
        recalibrate_model(model, {"x": x * np.float16(300)})


def test_what_is_left(rng: np.random.Generator) -> None:
    m = Maker(rng)
    within = onnx.helper.make_graph(
        [norm("d", "a", "q")], "then", [], [onnx.helper.make_tensor_value_info("a", 1, None)]
    )
    other = onnx.helper.make_graph(
        [node("Relu", ["d"], ["e"])], "else", [], [onnx.helper.make_tensor_value_info("e", 1, None)]
    )
    nodes = [
        node("Abs", ["t"], ["v"]),
        norm("x", "c"),
        norm("c", "d", "r"),
        node("If", ["which"], ["y"], then_branch=within, else_branch=other),
    ]
    params = m.params(4)
    params["t"] = params.pop("v")
    arrays = {**params, **m.params(4, "q"), **m.params(4, "r"), "which": np.array(True)}
    model = m.model(nodes, arrays, ["batch", 4])
    result = recalibrate_model(model, {"x": rng.normal(size=(9, 4)).astype(np.float32)})
    assert [each.name for each in result.norms] == ["normr"]
    assert result.left == [
        ("norm", "its statistics are not constant: 'v' is computed by Abs"),
        ("normq", "it stands in a subgraph"),
    ]
    assert result.passes == 1


def test_what_is_left_in_a_function_and_in_training(rng: np.random.Generator) -> None:
    for name, expected in (
        ("in_a_function", ("inner", "it stands in a function")),
        ("in_training", ("norm", "it has training_mode=1, and takes the statistics of each batch")),
    ):
        model = CASES[name](Maker(rng)).model
        before = model.SerializeToString(deterministic=True)
        result = recalibrate_model(model, {"x": rng.normal(size=(2, 4, 9, 9)).astype(np.float32)})
        assert (result.norms, result.left) == ([], [expected])
        assert model.SerializeToString(deterministic=True) == before


def test_statistics_for_each_position_are_left(rng: np.random.Generator) -> None:
    m = Maker(rng)
    model = m.model([norm("x", "c", spatial=0), norm("c", "y", "q", spatial=1)],
                    {**m.params(4), **m.params(4, "q")}, ["batch", 4], opset=7)  # fmt: skip
    result = recalibrate_model(model, {"x": rng.normal(size=(9, 4)).astype(np.float32)})
    assert result.left == [("norm", "it has spatial=0, and statistics for each position")]
    assert [each.name for each in result.norms] == ["normq"]


def given(name: str, shape: Any, kind: int = onnx.TensorProto.FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


UNFIT: dict[str, tuple[Any, dict[str, Any], str]] = {
    "one axis": (
        lambda m: m.model([norm("x", "y")], m.params(4), ["batch"]),
        {"x": [7]},
        "'x' goes into a batch norm, but has shape (7,)",
    ),
    "no values": (
        lambda m: m.model([norm("x", "y")], m.params(4), ["batch", 4, "length"]),
        {"x": [7, 4, 0]},
        "no values reach batch norm 'norm'",
    ),
    "other channels": (
        lambda m: m.model([norm("x", "y")], m.params(5), ["batch", "channels"]),
        {"x": [7, 4]},
        "batch norm 'norm' has 5 channels, and its x has 4",
    ),
    "no input": (
        lambda m: m.model([norm("k", "c"), node("Add", ["x", "c"], ["y"])], {"k": m.w(2, 4), **m.params(4)}, [2, 4]),
        {"x": [2, 4]},
        "the batch norms do not depend on an input",
    ),
    "other numbers of samples": (
        lambda m: two(m, "batch", "other"),
        {"x": [7, 4], "z": [6, 4]},
        "the data have other numbers of samples: 'x' has 7, 'z' has 6",
    ),
    "fixed numbers of samples": (
        lambda m: two(m, 2, 3),
        {"x": [6, 4], "z": [6, 4]},
        "the inputs of the model take [2, 3] samples at a time, expected one number",
    ),
}


def two(m: Maker, first: Any, second: Any) -> Any:
    nodes = [node("Concat", ["x", "z"], ["c"], axis=0), norm("c", "y")]
    return m.model(nodes, m.params(4), [first, 4], inputs=[given("z", [second, 4])])


@pytest.mark.parametrize("name", UNFIT)
def test_models_and_data_that_do_not_fit(rng: np.random.Generator, name: str) -> None:
    make, shapes, expected = UNFIT[name]
    data = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        recalibrate_model(make(Maker(rng)), data)


def test_one_array_for_two_inputs(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, data = (tmp_path / each for each in ("in.onnx", "out.onnx", "x.npy"))
    onnx.save(two(Maker(rng), "batch", "batch"), str(source))
    np.save(data, np.zeros((6, 4)))
    arguments = ["recalibrate", str(source), str(target), "--data", str(data)]
    assert main(arguments) == 1
    assert "an .npy file is of one input, and the model has 'x', 'z'" in capsys.readouterr().err

    def failing(file: Any, **told: Any) -> None:
        raise OSError(5, "Input/output error", str(data))

    monkeypatch.setattr(np, "load", failing)  # as of a disk that is damaged
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"batchnorm recalibrate: {data}: Input/output error\n"
    assert not target.exists()


@pytest.mark.parametrize("name", ["in.onnx", "data.npz"])
def test_a_target_that_is_read(
    rng: np.random.Generator, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data = tmp_path / "in.onnx", tmp_path / "data.npz"
    onnx.save(network(rng), str(source))
    np.savez(data, x=rng.normal(size=(6, 4, 5, 5)))
    before = source.read_bytes(), data.read_bytes()
    assert main(["recalibrate", str(source), str(tmp_path / name), "--data", str(data)]) == 1
    assert f"{tmp_path / name} is what is to be read, expected another file" in capsys.readouterr().err
    assert (source.read_bytes(), data.read_bytes()) == before


def test_the_command_tells_what_is_left(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target, data = (tmp_path / each for each in ("in.onnx", "out.onnx", "data.npz"))
    onnx.save(CASES["in_training"](Maker(rng)).model, str(source))
    np.savez(data, x=rng.normal(size=(2, 4, 9, 9)))
    assert main(["recalibrate", str(source), str(target), "--data", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "1 left:",
        "  norm: it has training_mode=1, and takes the statistics of each batch",
        f"written to {target}",
    ]


X = np.zeros((6, 4, 5, 5), np.float32)
REFUSED = {
    "z has no x": ({"z": X}, {}, "the data have no 'x', which is an input of the model, only 'z'"),
    "a wrong shape": ({"x": X[:, :3]}, {}, "'x' has shape (6, 3, 5, 5) in the data, expected (batch, 4, 5, 5)"),
    "too few axes": ({"x": X[0]}, {}, "'x' has shape (4, 5, 5) in the data"),
    "texts": ({"x": np.full(X.shape, "a")}, {}, "'x' has dtype <U1 in the data, expected tensor(float)"),
    "no samples": ({"x": X[:0]}, {}, "the data have no samples"),
    "infinite values": ({"x": X + np.float32(np.inf)}, {}, "values reach batch norm 'norm' that are not finite"),
    "a wrong batch": ({"x": X}, {"model": 4, "batch": 3}, "the model takes 4 samples at a time, not 3"),
    "no multiple": ({"x": X}, {"model": 4}, "the model takes 4 samples at a time, and 6 is no multiple of it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(rng: np.random.Generator, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, told, expected = REFUSED[name]
    source, target, data = (tmp_path / each for each in ("in.onnx", "out.onnx", "data.npz"))
    onnx.save(network(rng, told.get("model", "batch")), str(source))
    np.savez(data, **arrays)
    arguments = ["recalibrate", str(source), str(target), "--data", str(data)]
    if "batch" in told:
        arguments += ["--batch", str(told["batch"])]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("batchnorm recalibrate: ")
    assert expected in said.err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data.npz", "in.onnx"]


def test_command(rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, data = (tmp_path / each for each in ("in.onnx", "out.onnx", "data.npz"))
    onnx.save(network(rng), str(source))
    x = rng.normal(size=(12, 4, 5, 5))
    np.savez(data, x=x, label=np.arange(12))
    assert main(["recalibrate", str(source), str(target), "--data", str(data), "--batch", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{source}: 4 of 4 batch norms recalibrated", "on 12 samples, in 3 passes"]
    assert lines[-2:] == [
        "1 had numbers in common with other nodes, and have their own now: normq",
        f"written to {target}",
    ]
    statistics(onnx.load(target), {"x": x.astype(np.float32)})
    first = target.read_bytes()
    np.save(tmp_path / "x.npy", x)
    arguments = ["recalibrate", str(source), str(target), "--data", str(tmp_path / "x.npy"), "--batch", "5", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["norms"][0]["name"] == "norm"
    assert target.read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00cut"])
def test_bad_data(rng: np.random.Generator, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, data = (tmp_path / each for each in ("in.onnx", "out.onnx", "data.npz"))
    onnx.save(network(rng), str(source))
    data.write_bytes(content)
    assert main(["recalibrate", str(source), str(target), "--data", str(data)]) == 1
    said = capsys.readouterr().err
    assert str(data) in said
    assert said.count("\n") == 1
    assert not target.exists()
