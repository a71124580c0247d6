# SPDX-License-Identifier: Apache-2.0
"""`batchnorm fold` and `batchnorm recalibrate`: files, what is printed, and what is refused with nothing written."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fold_table import ROWS
from onnx_commands import names, refused, save, small, value
from onnx_graphs import CASES
from onnx_making import Maker, node, norm, onnx, operators
from onnx_runs import drawn, near_enough, run

from batchnorm.cli import main
from batchnorm.onnx_files import read_model
from batchnorm.onnx_files.writing import prepared


@pytest.fixture
def source(rng: np.random.Generator, tmp_path: Path) -> Path:
    return save(CASES["between_convs"](Maker(rng)).model, tmp_path / "in.onnx")


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
    """Weights too large for protobuf go into a file beside the model: tried with a smaller limit."""
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
    """The column of this package is right; the other columns are about other packages."""
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
