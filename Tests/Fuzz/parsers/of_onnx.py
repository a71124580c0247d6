# SPDX-License-Identifier: Apache-2.0
"""ONNX files: graphs with batch norms, as they are read, inspected, converted and folded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from batchnorm.conversion import convert_file
from batchnorm.inspection import findings, read_norms
from judge import REFUSALS, FaultError, expect, refuses, same_arrays
from mutations import NUMBERS, SIZES

NAME, SUFFIX, PACKAGES = "onnx", ".onnx", ("onnx",)
_OPERATORS = ["Conv", "BatchNormalization", "Identity", "Add", "Relu", "Gemm", "Reshape", "Constant", "Cast", "If", "X"]
_NAMES = ["x", "y", "", "w", "scale", "B", "mean", "var", "u", "v", "s0", "none"]
_ATTRIBUTES = ["epsilon", "momentum", "training_mode", "spatial", "is_test", "kernel_shape", "value", "perm", "to"]


def _model(opset: int = 15) -> Any:
    """x -> Conv -> BatchNormalization -> Relu -> Gemm -> y, with parameters that come in several ways."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    numbers = np.random.default_rng(opset)
    told = {"epsilon": 1e-3, "momentum": 0.8}
    constant = numpy_helper.from_array(numbers.uniform(0.5, 2, 3).astype(np.float32), "s0")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["u"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("Constant", [], ["s0"], value=constant),
        helper.make_node("Identity", ["s0"], ["scale"]),
        helper.make_node("BatchNormalization", ["u", "scale", "B", "mean", "var"], ["v"], name="bn", **told),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    given = {name: numbers.uniform(0.5, 2, 3).astype(np.float32) for name in ("B", "mean", "var")}
    given["w"] = numbers.normal(size=(3, 2, 1, 1)).astype(np.float32)
    tensors = [numpy_helper.from_array(array, name) for name, array in given.items()]
    tensors[0].float_data.extend(given["B"])
    tensors[0].ClearField("raw_data")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4, 4])
    model = helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors), producer_name="fuzz")
    model.ir_version = 8
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    onnx.checker.check_model(model)
    return model


def seeds(folder: Path) -> list[bytes]:
    return [_model(opset).SerializeToString(deterministic=True) for opset in (9, 13, 15)]


def mutated(rng: random.Random, data: bytes) -> bytes:
    import onnx

    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        rng.choice([_node, _node, _attribute, _attribute, _tensor, _tensor, _tensor, _graph, _rest])(rng, model)
    return model.SerializeToString(deterministic=True)


def _node(rng: random.Random, model: Any) -> None:
    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    change = rng.randrange(6)
    if change == 0:
        node.op_type = rng.choice(_OPERATORS)
    elif change == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_NAMES)
    elif change == 2 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(_NAMES)
    elif change == 3:
        (node.input if rng.random() < 0.6 else node.output).append(rng.choice(_NAMES))
    elif change == 4:
        del (node.input if rng.random() < 0.6 else node.output)[rng.randrange(3) :]
    else:
        node.domain = rng.choice(["", "ai.onnx", "x"])


def _attribute(rng: random.Random, model: Any) -> None:
    from onnx import helper

    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    if node.attribute and rng.random() < 0.3:
        del node.attribute[rng.randrange(len(node.attribute))]
    if node.attribute and rng.random() < 0.2:
        rng.choice(node.attribute).type = rng.randrange(15)
    if node.attribute and rng.random() < 0.2:
        rng.choice(node.attribute).ref_attr_name = "a"
    values = [
        0,
        1,
        2,
        -1,
        2**62,
        [1],
        [1, 1],
        [0.5],
        "x",
        *NUMBERS,
        model.graph,
        [model.graph],
        *model.graph.initializer,
    ]
    if rng.random() < 0.7:
        node.attribute.append(helper.make_attribute(rng.choice(_ATTRIBUTES), rng.choice(values)))


def _tensor(rng: random.Random, model: Any) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    change = rng.randrange(9)
    if change == 0:
        tensor.data_type = rng.randrange(30)
    elif change == 1:
        tensor.dims[:] = [rng.choice(SIZES) % 2**63 for _ in range(rng.choice([0, 1, 2, 5]))]
    elif change == 2:
        tensor.dims[:] = rng.choice([[], [3], [1, 3], [3, 1, 1], [0], [-1], [-1, -3], [2], [2**32, 2**32]])
    elif change == 3:
        tensor.raw_data = rng.choice([tensor.raw_data[:-1], tensor.raw_data * 2, b"", rng.randbytes(12), b"\xff" * 12])
    elif change == 4:
        tensor.name = rng.choice(_NAMES)
    elif change == 5:
        tensor.float_data[:] = [rng.choice(NUMBERS[:7]) for _ in range(rng.choice([0, 1, 3, 4]))]
    elif change == 6:
        tensor.int32_data[:] = [rng.choice(SIZES[:14]) for _ in range(rng.choice([1, 3]))]
    elif change == 7:
        tensor.data_location = 1
        where = rng.choice(["/etc/passwd", "../x", "", ".", "input.onnx", "none.bin", "\0"])
        for key, value in (("location", where), ("offset", rng.choice(["0", "-1", "9" * 30, "x"])), ("length", "12")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    else:
        tensor.segment.begin = 1


def _graph(rng: random.Random, model: Any) -> None:
    graph = model.graph
    repeated = rng.choice([graph.node, graph.input, graph.output, graph.initializer, model.opset_import])
    change = rng.randrange(4)
    if change == 0 and repeated:
        del repeated[rng.randrange(len(repeated))]
    elif change == 1 and repeated:
        repeated.append(rng.choice(repeated))
    elif change == 2 and len(graph.node) > 1:
        first = graph.node[0]
        moved = type(first)()
        moved.CopyFrom(first)
        del graph.node[0]
        graph.node.append(moved)
    elif repeated is graph.input and graph.initializer:
        repeated.add().name = rng.choice(graph.initializer).name


def _rest(rng: random.Random, model: Any) -> None:
    change = rng.randrange(6)
    if change == 0:
        model.ir_version = rng.choice([0, 1, 3, 4, 10, 99, 2**62])
    elif change == 1 and model.opset_import:
        model.opset_import[0].version = rng.choice([0, 1, 6, 7, 8, 9, 14, 15, 22, 99, -1, 2**62])
    elif change == 2 and model.opset_import:
        model.opset_import[0].domain = rng.choice(["ai.onnx", "x"])
    elif change == 3:
        function = model.functions.add()
        function.name, function.domain = rng.choice(_OPERATORS), rng.choice(["", "x"])
        function.input.extend(["u", "scale"])
        function.node.extend(model.graph.node[:3])
    elif change == 4:
        sparse = model.graph.sparse_initializer.add()
        sparse.values.name, sparse.dims[:] = rng.choice(_NAMES), [2**40]
    else:
        model.graph.name = rng.choice(["", "\n"])


def _numbers(tensor: Any) -> np.ndarray[Any, Any]:
    """The numbers of a tensor, by what the format says of its fields."""
    kinds = {
        1: "f4",
        2: "u1",
        3: "i1",
        4: "u2",
        5: "i2",
        6: "i4",
        7: "i8",
        9: "?",
        10: "f2",
        11: "f8",
        12: "u4",
        13: "u8",
    }
    if tensor.data_type not in kinds:
        return None  # type: ignore[return-value]
    kind = np.dtype(kinds[tensor.data_type])
    if tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, kind.newbyteorder("<")).reshape(tuple(tensor.dims))
    given = {1: tensor.float_data, 11: tensor.double_data, 7: tensor.int64_data, 12: tensor.uint64_data}
    given[13] = tensor.uint64_data
    values = given.get(tensor.data_type, tensor.int32_data)
    if tensor.data_type == 10:
        return np.array(values, "u2").view("f2").reshape(tuple(tensor.dims))
    return np.array(values, kind).reshape(tuple(tensor.dims))


def check(path: Path) -> bool:
    """True if its arrays load; all that can be done with a model is done, or refused."""
    import onnx

    refused, found = refuses(lambda: bn.read_state(path), path, names=str(path))
    if not refused:
        expected = {
            each.name: _numbers(each) for each in onnx.ModelProto.FromString(path.read_bytes()).graph.initializer
        }
        known = {name: array for name, array in expected.items() if array is not None}
        same_arrays({name: array for name, array in found.items() if name in known}, known)
        expect(found.keys() == expected.keys(), "arrays are missing")
    unread, norms = refuses(lambda: read_norms(path), path)
    if not unread:
        expect(len(findings(norms)) == len(norms), "findings are not one list for each batch norm")
    # A TypeError is from_state()'s word for a parameter that is not of floats.
    _written(path, ".npz", lambda target: convert_file(path, target, "onnx", "keras"), (*REFUSALS, TypeError))
    _folded(path)
    return not refused


def _written(path: Path, suffix: str, make: Any, kinds: Any = REFUSALS) -> Any:
    """The value of a call that has written a file; or None, and there is no file."""
    target = path.with_name(f"written{suffix}")
    target.unlink(missing_ok=True)
    before = sorted(path.parent.iterdir())
    refused, result = refuses(lambda: make(target), path, kinds)
    after = sorted(path.parent.iterdir())
    expect(after == (before if refused else sorted([*before, target])), f"files are {after}, and were {before}")
    return None if refused else (result, target)


def _folded(path: Path) -> None:
    """A folded model is one that gives the same, where ONNX's own evaluator can run the two."""
    from batchnorm.onnx_files import fold_file

    made = _written(path, ".onnx", lambda target: fold_file(path, target))
    if made is None or not made[0][0].folded:
        return
    first, second = _run(path), _run(made[1])
    if first is None or _opset(path) < 14:  # before it, ONNX's evaluator trains where a momentum is told
        return
    if second is None:
        raise FaultError("the folded model does not run")
    for a, b in zip(first, second):
        expect(a.shape == b.shape, f"the folded model gives {b.shape}, expected {a.shape}")
        # Rounding of float32 in a convolution of two terms, a scale and a shift, relative to the largest.
        near = 1e-4 * max(1.0, float(np.max(np.abs(a), initial=0)))
        expect(bool(np.all(np.abs(a - b) <= near)), f"the folded model gives {b}, expected {a}")


def _opset(path: Path) -> int:
    import onnx

    told = {each.domain: each.version for each in onnx.ModelProto.FromString(path.read_bytes()).opset_import}
    return int(told.get("", told.get("ai.onnx", 1)))


def _run(path: Path) -> Any:
    """The outputs for an input that is drawn, or None if it does not run or they are not finite."""
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(4).normal(size=(2, 2, 4, 4)).astype(np.float32)
    try:
        with np.errstate(all="ignore"):
            outputs = ReferenceEvaluator(str(path)).run(None, {"x": x})
    except Exception:
        return None
    fine = all(
        isinstance(each, np.ndarray) and each.dtype == np.float32 and np.isfinite(each).all() for each in outputs
    )
    return outputs if fine and all(np.max(np.abs(each), initial=0) < 1e6 for each in outputs) else None
