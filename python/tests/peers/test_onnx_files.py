# SPDX-License-Identifier: Apache-2.0
"""`batchnorm fold` and `batchnorm recalibrate`: files, what is printed, and what is refused with nothing written."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import peer

onnx = peer("onnx")
peer("onnxruntime")
from fold_table import ROWS  # noqa: E402
from onnx_graphs import CASES, Maker, node, norm, operators  # noqa: E402
from onnx_runs import drawn, near_enough, run, run_by_reference  # noqa: E402

from batchnorm.cli import main  # noqa: E402
from batchnorm.onnx_files import Constants, read_model, verify  # noqa: E402
from batchnorm.onnx_files.writing import prepared  # noqa: E402


@pytest.fixture
def source(rng: np.random.Generator, tmp_path: Path) -> Path:
    return save(CASES["between_convs"](Maker(rng)).model, tmp_path / "in.onnx")


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


def test_fold(rng: np.random.Generator, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("out.onnx")
    assert main(["fold", str(source), str(target), "--verify", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{source}: 3 of 3 batch norms folded"
    assert lines[1:3] == ["  2 into Conv before it", "  1 into Conv after it"]
    assert lines[3].startswith("2 tensors compared on 2 random inputs: they differ by at most ")
    assert lines[4:] == [f"written to {target}"]
    model, copy = read_model(source), read_model(target)
    assert operators(copy) == "Conv Conv"
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given))
    first = target.read_bytes()
    assert main(["fold", str(source), str(target)]) == 0  # over the older file
    assert target.read_bytes() == first
    assert names(source) == ["in.onnx", "out.onnx"]


def test_fold_tells_json(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("out.onnx")
    assert main(["fold", str(source), str(target), "--json", "--keep", "norm", "--verify", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["folded"]] == ["normq", "normp"]
    assert told["left"] == [{"name": "norm", "reason": "it is to be kept"}]
    assert told["output"] is None
    assert told["verified"]["inputs"] == 3
    assert set(told["verified"]["errors"]) == {"c", "y"}
    assert names(source) == ["in.onnx"]


def test_a_model_without_batch_norm(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = Maker(rng)
    model = m.model([node("Conv", ["x", "w"], ["y"])], {"w": m.w(6, 4, 3, 3)}, [2, 4, 9, 9])
    source, target = save(model, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 9, 9), np.float32))
    for command in (["fold"], ["recalibrate", "--data", str(tmp_path / "x.npy")]):
        assert main([command[0], str(source), str(target), *command[1:]]) == 0
        assert f"{source} has no batch norm\n" in capsys.readouterr().out
        assert onnx.load(target) == model
        target.unlink()


def damaged(source: Path, kind: str) -> str:
    """Writes another file instead, and tells what is to be said."""
    content = source.read_bytes()
    if kind == "empty":
        source.write_bytes(b"")
        return "is empty, expected an ONNX model"
    if kind == "text":
        source.write_text("no model", encoding="utf-8")
        return "is no ONNX model, or is cut off"
    if kind == "cut off":
        source.write_bytes(content[: len(content) // 2])
        return "is no ONNX model, or is cut off"
    if kind == "another message":
        source.write_bytes(onnx.load(source).graph.initializer[0].SerializeToString())
        return "is no"
    if kind == "missing":
        source.unlink()
        return "No such file or directory"
    if kind == "a directory":
        source.unlink()
        source.mkdir()
        return "Is a directory"
    model = onnx.load(source)
    if kind == "wrong":
        model.graph.node[1].input[0] = "nothing"
    elif kind == "without an opset":
        del model.opset_import[:]
    save(model, source)
    return "is no valid ONNX model"


KINDS = ["empty", "text", "cut off", "another message", "missing", "a directory", "wrong", "without an opset"]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files(source: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = damaged(source, kind)
    target = source.with_name("out.onnx")
    target.write_bytes(b"older")
    np.savez(source.with_name("x.npz"), x=np.zeros((2, 4, 9, 9), np.float32))
    before = names(source)
    assert expected in refused(capsys, "fold", source, target)
    assert expected in refused(capsys, "recalibrate", source, target, "--data", source.with_name("x.npz"))
    assert target.read_bytes() == b"older"
    assert names(target) == before


def test_every_cut(source: Path, tmp_path: Path) -> None:
    """Wherever a file is cut off, there is a sentence."""
    content = source.read_bytes()
    for length in range(0, len(content), 7):
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"is empty|is no ONNX model|is no valid ONNX model"):
            read_model(cut)


def test_files_that_are_in_the_way(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = source.read_bytes()
    link = source.with_name("link.onnx")
    link.symlink_to(source)
    for target in (source, link):
        assert "expected another file" in refused(capsys, "fold", source, target)
    assert source.read_bytes() == content
    assert "no file can be written" in refused(capsys, "fold", source, source.parent)
    assert "no file can be written" in refused(capsys, "fold", source, source.parent / "nowhere" / "out.onnx")
    assert names(source) == ["in.onnx", "link.onnx"]


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


def test_what_the_command_tells(rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nodes that were taken up, batch norms that are left, and comparisons that show nothing."""
    m = Maker(rng)
    arrays = {**m.params(4), **m.params(6, "q"), **m.params(6, "r"), "w": m.w(6, 4, 1, 1), "u": m.w(6, 6, 1, 1)}
    arrays.update(s=m.w(4, 1, 1), t=m.w(4, 1, 1), rb=np.full(6, -100, np.float32))
    nodes = [
        norm("x", "n"),
        node("Mul", ["n", "s"], ["scaled"], name="scale"),
        node("Add", ["scaled", "t"], ["shifted"], name="shift"),
        node("Relu", ["shifted"], ["c"]),
        node("Conv", ["c", "w"], ["d"]),
        norm("d", "e", "q"),
        node("Relu", ["e"], ["f"]),
        node("Conv", ["f", "u"], ["h"]),
        norm("h", "i", "r"),
        node("Relu", ["i"], ["y"]),
    ]
    model = m.model(nodes, arrays, [2, 4, 5, 5], overridden=["w"])
    source = save(model, tmp_path / "in.onnx")
    assert main(["fold", str(source), str(tmp_path / "out.onnx"), "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    compared = next(index for index, line in enumerate(lines) if " tensors compared on 3 random inputs: " in line)
    assert lines[:compared] == [
        f"{source}: 1 of 3 batch norms folded",
        "  1 into Conv before it",
        "2 other nodes taken up by a batch norm: scale, shift",
        "2 left:",
        "  norm: no layer is beside it: after the input 'x', and before Relu 'c'",
        "  normq: the weight of Conv 'd' is not constant: 'w' is an input of the graph as well, "
        "which may be given another value",
        "--overridable changes those inputs of 1 of them, which is right if no caller gives them values",
    ]
    assert lines[compared].startswith("3 tensors")
    assert lines[compared + 1 : -1] == [
        "2 of these comparisons show nothing, 1 do:",
        "  y is 0 everywhere",
        "  i goes into a Relu that lets nothing of it through",
    ]


def test_the_command_tells_of_subgraphs(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = Maker(rng)
    bodies = [
        onnx.helper.make_graph(
            [node("Conv", ["x", "w"], [f"c{prefix}"]), norm(f"c{prefix}", f"o{prefix}", prefix)],
            f"body{prefix}", [], [value(f"o{prefix}", None)],
        )
        for prefix in "qr"
    ]  # fmt: skip
    nodes = [node("If", ["which"], ["y"], then_branch=bodies[0], else_branch=bodies[1])]
    arrays = {"w": m.w(6, 4, 3, 3), "which": np.array(True), **m.params(6, "q"), **m.params(6, "r")}
    source = save(m.model(nodes, arrays, [2, 4, 5, 5]), tmp_path / "in.onnx")
    assert main(["fold", str(source), str(tmp_path / "out.onnx"), "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{source}: 2 of 2 batch norms folded"
    assert lines[-2] == "2 were folded in subgraphs, whose tensors cannot be compared, only what comes of them"


def value(name: str, shape: Any, kind: int = onnx.TensorProto.FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def small(nodes: list[Any], outputs: list[Any], **arrays: Any) -> Any:
    """A model of an x of (3, 4)."""
    stored = [onnx.numpy_helper.from_array(np.array(array), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [value("x", [3, 4])], outputs, stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


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


@pytest.mark.parametrize("kind", ["missing", "short", "outside"])
def test_external_data_that_are_not_there(source: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = source.with_name("numbers.bin")
    save(onnx.load(source), source, save_as_external_data=True, location=data.name, size_threshold=0)
    if kind == "missing":
        data.unlink()
        expected = "'numbers.bin', which is not there"
    elif kind == "short":
        data.write_bytes(data.read_bytes()[:100])
        expected = "'numbers.bin', which cannot be read"
    else:
        model = onnx.load(source, load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = f"../{source.parent.name}/numbers.bin"
        source.write_bytes(model.SerializeToString())
        expected = "expected a file beside it or below"
    before = names(source)
    assert expected in refused(capsys, "fold", source, source.with_name("out.onnx"))
    assert names(source) == before


def test_external_data_of_sparse_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read from beside the model as well, and from nowhere else."""
    numbers, places = np.float32([1, 2]), np.array([0, 5])
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(numbers, "s"), onnx.numpy_helper.from_array(places, "places"), [3, 4]
    )
    sparse.values.ClearField("raw_data")
    sparse.values.data_location = onnx.TensorProto.EXTERNAL
    entry = sparse.values.external_data.add(key="location", value="numbers.bin")
    model = small([node("Add", ["x", "s"], ["y"])], [value("y", [3, 4])])
    (tmp_path / "numbers.bin").write_bytes(numbers.tobytes())
    source = tmp_path / "in.onnx"

    def write() -> None:
        del model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.append(sparse)
        source.write_bytes(model.SerializeToString())

    write()
    [read] = read_model(source, check=False).graph.sparse_initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(read.values), numbers)
    entry.value = "../numbers.bin"
    write()
    assert "expected a file beside it or below" in refused(capsys, "fold", source, tmp_path / "out.onnx")


def test_external_data(rng: np.random.Generator, source: Path) -> None:
    """They are read from beside the model, wherever one stands, and the new model needs them no more."""
    model = onnx.load(source)
    save(onnx.load(source), source, save_as_external_data=True, location="numbers.bin", size_threshold=0)
    target = source.parent / "elsewhere" / "out.onnx"
    target.parent.mkdir()
    assert main(["fold", str(source), str(target), "--verify"]) == 0
    assert names(target) == ["out.onnx"]
    given = drawn(rng, model)
    near_enough(run(model, given), run(onnx.load(target), given))


def test_large_models(rng: np.random.Generator, source: Path) -> None:
    """What protobuf cannot hold goes into a file beside the model: tried with a smaller limit."""
    m = Maker(rng)
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    model = m.model(nodes, {"w": m.w(16, 4, 3, 3), **m.params(16)}, [2, 4, 9, 9])
    save(model, source)
    given = drawn(rng, model)
    expected = run(model, given)
    target = source.with_name("out.onnx")
    with prepared(target, read_model(source), most_bytes=2000) as meanwhile:
        assert meanwhile.exists()
        assert names(source) == [meanwhile.parent.name, "in.onnx"]
    assert names(source) == ["in.onnx", "out.onnx", "out.onnx.data"]
    assert len({each.stat().st_mode for each in (source, target, target.with_name("out.onnx.data"))}) == 1
    near_enough(expected, run(read_model(target), given), units=0)


def test_nothing_is_left_of_what_goes_wrong(source: Path) -> None:
    model = read_model(source)
    model.graph.node[0].op_type = "Nonsense"
    with (
        pytest.raises(ValueError, match="out.onnx is no valid ONNX model"),
        prepared(source.with_name("out.onnx"), model),
    ):
        raise AssertionError
    with pytest.raises(KeyboardInterrupt), prepared(source.with_name("out.onnx"), read_model(source)):
        raise KeyboardInterrupt
    assert names(source) == ["in.onnx"]


def test_packages_that_are_missing(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source.with_name("out.onnx")
    np.savez(source.with_name("x.npz"), x=np.zeros((2, 4, 9, 9), np.float32))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    needed = "this needs onnxruntime: pip install onnx onnxruntime"
    assert refused(capsys, "fold", source, target, "--verify") == needed
    assert refused(capsys, "recalibrate", source, target, "--data", source.with_name("x.npz")) == needed
    assert not target.exists()
    assert main(["fold", str(source), str(target)]) == 0


def test_help_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("fold", "recalibrate"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "IN.onnx" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["constants", "folding"])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"batchnorm.onnx_files.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert not found.failed


PAGE = Path(__file__).parents[3] / "docs" / "folding-onnx.md"


def test_the_page_s_program(source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code = PAGE.read_text(encoding="utf-8").partition("```py\n")[2].partition("```")[0]
    source.rename(source.with_name("model.onnx"))
    monkeypatch.chdir(source.parent)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "['normq', 'normp'] [('norm', 'it is to be kept')]\nTrue\n"


def test_the_page_s_table(rng: np.random.Generator) -> None:
    """As to this package; what others leave is their affair."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if len(cells) == 6 and "(" in cells[2]:
            rows[cells[0]] = cells[1], cells[2]
    assert len(rows) == len(ROWS)
    for name, title in ROWS.items():
        case = CASES[name](Maker(rng))
        left = case.operators.split()
        assert rows[title] == (str(len(case.model.graph.node)), f"{left.count('BN')} ({len(left)})")


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
    """Beside the reference of ONNX."""
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
    """Before opset 5, which the reference has not."""
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
