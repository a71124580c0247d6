# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect` and `convert` of ONNX files: wherever the parameters are, and files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array
from onnx_making import Maker, node, norm, onnx

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import Norm, findings, read_norms

Captured = pytest.CaptureFixture[str]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NEWEST = onnx.defs.onnx_opset_version()
SHAPE = [2, 4, 3, 3]


@pytest.fixture
def maker(rng: np.random.Generator) -> Maker:
    return Maker(rng)


def norms(model: Any, folder: Path) -> list[Norm]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return read_norms(path)


def same(found: Norm, arrays: dict[str, Array], prefix: str = "") -> None:
    assert found.unknown == ""
    for name, key in (("gamma", "g"), ("beta", "b"), ("mean", "m"), ("var", "v")):
        np.testing.assert_array_equal(getattr(found, name), arrays[prefix + key])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_initializers(dtype: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    made = Maker(rng, dtype)
    arrays = made.params(4)
    [found] = norms(made.model([norm("x", "y", epsilon=1e-3, momentum=0.75)], arrays, SHAPE), tmp_path)
    same(found, arrays)
    assert (found.name, found.framework, found.channels, found.eps, found.momentum) == ("norm", "onnx", 4, 1e-3, 0.25)
    assert found.dtypes["var"] == str(np.dtype(dtype))
    assert findings([found]) == [[]]


def test_constants_of_every_kind(maker: Maker, tmp_path: Path) -> None:
    arrays = maker.params(4)
    value = onnx.helper.make_tensor("fill", onnx.TensorProto.FLOAT, [1], [2.5])
    nodes = [
        node("Constant", [], ["g"], value=onnx.numpy_helper.from_array(arrays["g"])),
        node("Constant", [], ["b"], value_floats=[float(each) for each in arrays["b"]]),
        node("Identity", ["old"], ["m"]),
        node("ConstantOfShape", ["shape"], ["v"], value=value),
        norm("x", "y"),
    ]
    stored = {"old": arrays["m"], "shape": np.array([4], np.int64)}
    [found] = norms(maker.model(nodes, stored, SHAPE), tmp_path)
    same(found, {**arrays, "v": np.full(4, 2.5)})


def test_parameters_that_are_computed(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    nodes = [node("Abs", ["s"], ["v"]), norm("x", "y")]
    given = [onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, [4])]
    arrays = maker.params(4)
    del arrays["v"]
    [found] = norms(maker.model(nodes, arrays, SHAPE, inputs=given), tmp_path)
    assert found.unknown == "its parameters are not in the file: 'v' is computed by Abs"
    assert cli.main(["inspect", str(tmp_path / "model.onnx"), "--fail-on", "unread"]) == 3
    assert "'v' is computed by Abs" in capsys.readouterr().out
    assert convert(tmp_path / "model.onnx", tmp_path / "o.npz") == 1
    assert "batchnorm convert: norm: its parameters are not in the file" in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()


def convert(path: Path, output: Path, target: str = "pytorch") -> int:
    return cli.main(["convert", str(path), str(output), "--from", "onnx", "--to", target])


@pytest.mark.parametrize("opset", [1, 5, 6, 7, 8, 9, 13, 14, 15, NEWEST])
def test_every_opset(opset: int, maker: Maker, tmp_path: Path) -> None:
    arrays = maker.params(4)
    told: dict[str, Any] = {"is_test": 1} if opset < 7 else {}
    told.update({"consumed_inputs": [0, 0, 0, 1, 1]} if opset < 6 else {})
    model = raw(norm("x", "y", epsilon=0.5, momentum=0.5, **told), arrays, opset)
    [found] = norms(model, tmp_path)
    same(found, arrays)
    assert (found.eps, found.momentum, found.in_training) == (0.5, 0.5, "")
    told = (
        {"training_mode": 1, "outputs": ["y", "m2", "v2"]} if opset >= 14 else {"outputs": ["y", "m2", "v2", "a", "b"]}
    )
    [found] = norms(raw(norm("x", "y", **told), arrays, opset), tmp_path)
    assert found.in_training
    assert [each.kind for each in findings([found])[0]] == ["training"]


def raw(made: Any, arrays: dict[str, Array], opset: int) -> Any:
    """Makes a model without the checker, as the newest onnx cannot check all operators of the first opsets."""
    kind = onnx.TensorProto.FLOAT
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in arrays.items()]
    infos = [onnx.helper.make_tensor_value_info(name, kind, SHAPE) for name in ("x", "y")]
    inputs = infos[:1] + [onnx.helper.make_tensor_value_info(t.name, kind, t.dims) for t in tensors]
    graph = onnx.helper.make_graph([made], "graph", inputs, infos[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=3)


def test_statistics_for_each_position(maker: Maker, tmp_path: Path) -> None:
    """spatial=0, which opsets 1 to 8 have."""
    arrays = {name: maker.rng.uniform(1, 2, (4, 3, 3)).astype("f4") for name in "gbmv"}
    [found] = norms(raw(norm("x", "y", spatial=0), arrays, 7), tmp_path)
    assert found.channels == 36
    np.testing.assert_array_equal(found.var, arrays["v"].reshape(-1))


def body(name: str, nodes: list[Any], arrays: dict[str, Array], inputs: tuple[Any, ...] = (), outputs: Any = ()) -> Any:
    tensors = [onnx.numpy_helper.from_array(values, key) for key, values in arrays.items()]
    return onnx.helper.make_graph(nodes, name, list(inputs), list(outputs), tensors)


def info(name: str, kind: int = onnx.TensorProto.FLOAT, shape: Any = SHAPE) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def test_subgraphs(maker: Maker, tmp_path: Path) -> None:
    """A branch has its parameters from itself and from around it; a loop within a branch."""
    first, second, third = maker.params(4, "p"), maker.params(4, "q"), maker.params(4, "r")
    inner = body(
        "loop",
        [node("Identity", ["go"], ["on"]), norm("carried", "next", "r")],
        third,
        (info("i", onnx.TensorProto.INT64, []), info("go", onnx.TensorProto.BOOL, []), info("carried")),
        (info("on", onnx.TensorProto.BOOL, []), info("next")),
    )
    then = body("then", [norm("x", "t", "p")], {"pg": first["pg"]}, outputs=[info("t")])
    other = body("else", [node("Loop", ["n", "yes", "x"], ["e"], name="loop", body=inner), norm("e", "f", "q")], second)
    other.output.extend([info("f")])
    top = node("If", ["yes"], ["y"], name="if", then_branch=then, else_branch=other)
    around = {name: value for name, value in first.items() if name != "pg"}
    around.update({"yes": np.array(True), "n": np.array(2, np.int64)})
    model = maker.model([top], around, SHAPE)
    found = {each.name: each for each in norms(model, tmp_path)}
    assert sorted(found) == ["if/else_branch/loop/body/normr", "if/else_branch/normq", "if/then_branch/normp"]
    same(found["if/then_branch/normp"], first, "p")
    same(found["if/else_branch/normq"], second, "q")
    same(found["if/else_branch/loop/body/normr"], third, "r")


def test_functions(maker: Maker, tmp_path: Path) -> None:
    """Each call has its own parameters, and settings that the function refers to."""
    inside = norm("a", "c", "", training_mode=0)
    reference = inside.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "epsilon", "slack", onnx.AttributeProto.FLOAT
    opsets = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("mine", "Block", ["a", "g", "b", "m", "v"], ["c"], [inside], opsets, ["slack"])
    outer = onnx.helper.make_function(
        "mine", "Outer", ["a", "g", "b", "m", "v"], ["c"],
        [node("Block", ["a", "g", "b", "m", "v"], ["c"], name="within", domain="mine", slack=0.125)],
        [*opsets, onnx.helper.make_opsetid("mine", 1)],
    )  # fmt: skip
    arrays = {**maker.params(4, "p"), **maker.params(4, "q")}

    def call(kind: str, x: str, y: str, prefix: str, **told: Any) -> Any:
        return node(kind, [x, *(prefix + each for each in "gbmv")], [y], name=f"call{prefix}", domain="mine", **told)

    nodes = [call("Block", "x", "z", "p", slack=0.25), call("Outer", "z", "y", "q")]
    imports = [onnx.helper.make_opsetid("mine", 1)]
    first, second = norms(maker.model(nodes, arrays, SHAPE, functions=[function, outer], imports=imports), tmp_path)
    same(first, arrays, "p")
    same(second, arrays, "q")
    assert (first.name, first.eps) == ("callp/norm", 0.25)
    assert (second.name, second.eps) == ("callq/within/norm", 0.125)


def test_a_function_that_is_given_what_is_computed(maker: Maker, tmp_path: Path) -> None:
    """The reason names what stands outside of it."""
    names = ["a", "g", "b", "m", "v"]
    opsets = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("mine", "Block", names, ["c"], [norm("a", "c")], opsets)
    arrays = maker.params(4)
    arrays["old"] = arrays.pop("v")
    nodes = [node("Abs", ["old"], ["fresh"]), node("Block", ["x", "g", "b", "m", "fresh"], ["y"], domain="mine")]
    imports = [onnx.helper.make_opsetid("mine", 1)]
    [found] = norms(maker.model(nodes, arrays, SHAPE, functions=[function], imports=imports), tmp_path)
    assert found.unknown == "its parameters are not in the file: 'fresh' is computed by Abs"


def test_names_that_two_have(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    """Their arrays would have the same names."""
    arrays = {**maker.params(4, "p"), **maker.params(4, "q")}
    nodes = [norm("x", "z", "p"), norm("z", "y", "q")]
    nodes[1].name = nodes[0].name
    path, output = tmp_path / "model.onnx", tmp_path / "o.npz"
    path.write_bytes(maker.model(nodes, arrays, SHAPE).SerializeToString())
    assert convert(path, output) == 1
    assert capsys.readouterr().err == "batchnorm convert: two batch norms are called normp\n"
    assert not output.exists()


def test_functions_that_call_each_other_without_end(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("mine", 1)]
    again = node("Again", ["a"], ["c"], domain="mine", name="again")
    function = onnx.helper.make_function("mine", "Again", ["a"], ["c"], [again], imports)
    graph = onnx.helper.make_graph([node("Again", ["x"], ["y"], domain="mine")], "graph", [info("x")], [info("y")])
    model = onnx.helper.make_model(graph, functions=[function], opset_imports=imports)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert cli.main(["inspect", str(path)]) == 1
    assert "is nested without end, or too deeply" in capsys.readouterr().err


def external(maker: Maker, folder: Path) -> tuple[Path, dict[str, Array]]:
    arrays = maker.params(64)
    path = folder / "model.onnx"
    model = maker.model([norm("x", "y")], arrays, [2, 64, 3, 3])
    onnx.save_model(model, str(path), save_as_external_data=True, location="numbers.bin", size_threshold=0)
    return path, arrays


def test_external_data(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    path, arrays = external(maker, tmp_path)
    [found] = read_norms(path)
    same(found, arrays)
    numbers = tmp_path / "numbers.bin"
    numbers.write_bytes(numbers.read_bytes()[:-300])
    assert cli.main(["inspect", str(path)]) == 1
    assert "'numbers.bin', which cannot be read" in capsys.readouterr().err
    numbers.unlink()
    converting = ["convert", str(path), str(tmp_path / "o.npz"), "--from", "onnx", "--to", "flax"]
    for command in (["inspect", str(path)], converting):
        assert cli.main(command) == 1
        err = capsys.readouterr().err
        assert "'numbers.bin', which is not there" in err
        assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [path]


def test_external_data_of_another_folder(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "below").mkdir()
    path, _ = external(maker, tmp_path / "below")
    content = path.read_bytes().replace(b"numbers.bin", b"../numb.bin")
    path.write_bytes(content)
    (tmp_path / "numb.bin").write_bytes(b"\0" * 5000)
    assert cli.main(["inspect", str(path)]) == 1
    assert "expected a file beside it or below" in capsys.readouterr().err


DAMAGED: dict[str, tuple[Callable[[Maker], Any], str]] = {
    "inputs missing": (
        lambda m: raw(node("BatchNormalization", ["x", "g"], ["y"]), m.params(4), 17),
        "it has 2 inputs",
    ),
    "a name of nothing": (
        lambda m: raw(node("BatchNormalization", ["x", "g", "b", "m", "none"], ["y"]), m.params(4), 17),
        "'none' is no constant",
    ),
    "of different lengths": (
        lambda m: raw(norm("x", "y"), {**m.params(4), "v": np.ones(5, "f4")}, 17),
        "its arrays do not fit together: gamma has 4, beta has 4, mean has 4, var has 5",
    ),
    "a circle": (
        lambda m: circle(m),
        "its parameters are not in the file",
    ),
    "a momentum without a value": (
        lambda m: without_value(m, "momentum"),
        "its momentum is no number",
    ),
    "a constant that is a text": (
        lambda m: constant_of_text(m),
        "its parameters are not in the file: they are damaged (",
    ),
    "an epsilon that is a text": (
        lambda m: raw(norm("x", "y", epsilon="1e-5"), m.params(4), 17),
        "its epsilon is no number",
    ),
}


def circle(maker: Maker) -> Any:
    model = raw(norm("x", "y"), {}, 17)
    model.graph.node.extend([node("Identity", [f"{each}2"], [each]) for each in "gbmv"])
    model.graph.node.extend([node("Identity", [each], [f"{each}2"]) for each in "gbmv"])
    del maker
    return model


def constant_of_text(maker: Maker) -> Any:
    """A constant is a text where a tensor should be."""
    arrays = maker.params(4)
    del arrays["v"]
    model = raw(norm("x", "y"), arrays, 17)
    model.graph.node.append(node("Constant", [], ["v"], value="text"))
    return model


def without_value(maker: Maker, name: str) -> Any:
    """The attribute has the type UNDEFINED, as after one bit was turned over."""
    model = raw(norm("x", "y"), maker.params(4), 17)
    model.graph.node[0].attribute.add().name = name
    return model


@pytest.mark.parametrize("what", DAMAGED)
def test_nodes_that_are_damaged(what: str, maker: Maker, tmp_path: Path) -> None:
    make, said = DAMAGED[what]
    [found] = norms(make(maker), tmp_path)
    assert said in found.unknown


def test_no_batch_norm(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(maker.model([node("Relu", ["x"], ["y"])], {}, SHAPE).SerializeToString())
    assert cli.main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: no batch norm. Exporting and optimizing may have folded them away.\n"
    assert convert(path, tmp_path / "o.npz") == 1
    assert capsys.readouterr().err == "batchnorm convert: there is no batch norm of onnx\n"


def test_files_that_are_damaged(maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    """Cut off anywhere, and with bytes changed: a sentence, or what is left of the model; never a traceback."""
    arrays = maker.params(4)
    whole = maker.model([norm("x", "y")], arrays, SHAPE).SerializeToString()
    contents = [whole[:length] for length in range(len(whole))]
    for _ in range(150):
        changed = bytearray(whole)
        for place in maker.rng.integers(0, len(whole), 3):
            changed[place] = maker.rng.integers(256)
        contents.append(bytes(changed))
    contents += [b"\0" * 50, b"onnx", b"PK\3\4", maker.rng.bytes(200), b"{}"]
    path = tmp_path / "model.onnx"
    refused = 0
    for content in contents:
        path.write_bytes(content)
        status = cli.main(["inspect", str(path)])
        out, err = capsys.readouterr()
        assert (status, bool(err)) in ((0, False), (1, True))
        assert (err.count("\n"), out) == (1, "") or not err
        refused += status
    assert refused > len(whole) * 0.9
    path.unlink()
    path.mkdir()
    assert cli.main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err == f"batchnorm inspect: {path} is a folder, expected a file\n"


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_light_models(path: Path, capsys: Captured) -> None:
    """Counted by hand: nodes, and the lengths that shape inference has."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    nodes = [each for each in graph.node if each.op_type == "BatchNormalization"]
    assert cli.main(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["norms"]
    assert len(told) == len(nodes)
    shapes = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim] for each in graph.value_info}
    for each, made in zip(told, nodes):
        assert each["channels"] == shapes[made.output[0]][1]
        assert each["ranges"]["var"][0] <= each["ranges"]["var"][1]


@pytest.mark.parametrize("target", ["pytorch", "keras", "flax"])
def test_convert(target: Any, maker: Maker, tmp_path: Path, capsys: Captured) -> None:
    arrays = {**maker.params(4, "p"), **maker.params(4, "q")}
    nodes = [norm("x", "z", "p", epsilon=0.25, momentum=0.5), norm("z", "y", "q", epsilon=0.125)]
    path, output = tmp_path / "model.onnx", tmp_path / "o.npz"
    path.write_bytes(maker.model(nodes, arrays, SHAPE).SerializeToString())
    assert convert(path, output, target) == 0
    assert "0.25" in capsys.readouterr().out
    state = bn.read_state(output)
    for prefix in "pq":
        layer = bn.from_state(state, target, prefix=f"norm{prefix}")
        for name, key in (("gamma", "g"), ("beta", "b"), ("running_mean", "m"), ("running_var", "v")):
            np.testing.assert_array_equal(getattr(layer, name), arrays[prefix + key])
    told = ["--from", "onnx", "--to", target, "--eps", "0.75", "--json"]
    assert cli.main(["convert", str(path), str(output), *told]) == 0
    settings = [each["settings"] for each in json.loads(capsys.readouterr().out)["layers"]]
    assert [each.get("eps", each.get("epsilon")) for each in settings] == [0.75, 0.75]
    assert cli.main(["convert", str(path), str(output), "--from", "keras", "--to", "flax"]) == 1
    assert "is a model of ONNX, not of keras: tell --from onnx" in capsys.readouterr().err
