# SPDX-License-Identifier: Apache-2.0
"""ONNX's BatchNormalization of each opset, by its reference and by ONNX Runtime, wherever they run it as specified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import DTYPES, Array, Batch, near, peer

import batchnorm as bn

onnx = peer("onnx")
reference = peer("onnx.reference")

OPSETS: dict[int, Any] = {
    7: bn.onnx.batch_normalization_7,
    8: bn.onnx.batch_normalization_7,
    9: bn.onnx.batch_normalization_9,
    13: bn.onnx.batch_normalization_9,
    14: bn.onnx.batch_normalization_14,
    15: bn.onnx.batch_normalization_15,
    21: bn.onnx.batch_normalization_15,
}
INPUTS = ["X", "scale", "B", "mean", "var"]
OUTPUTS = ["Y", "new_mean", "new_var", "saved_mean", "saved_var"]


def model(opset: int, given: list[Array], outputs: int, told: dict[str, Any]) -> Any:
    """A model of the one operator, whose outputs have the types that the specification gives them."""
    node = onnx.helper.make_node("BatchNormalization", INPUTS, OUTPUTS[:outputs], **told)

    def value(name: str, like: Array) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(like.dtype), like.shape)

    of_outputs = [value(name, given[i]) for name, i in zip(OUTPUTS[:outputs], (0, 3, 4, 3, 4))]
    graph = onnx.helper.make_graph([node], "batchnorm", [value(*each) for each in zip(INPUTS, given)], of_outputs)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def by_reference(opset: int, given: list[Array], outputs: int, told: dict[str, Any]) -> list[Array]:
    """The outputs of the reference of opset 14 or 15.

    That of opset 7 fails, and that of 9 normalizes in inference with statistics that it blends with those of X. The
    formulas of all four are the same.
    """
    if opset < 14:
        opset, told = 14, {**told, "training_mode": int(outputs > 1)}
    made = model(opset, given, min(outputs, 3), told)
    return [np.asarray(each) for each in reference.ReferenceEvaluator(made).run(None, dict(zip(INPUTS, given)))]


def by_runtime(opset: int, given: list[Array], outputs: int, told: dict[str, Any]) -> list[Array]:
    runtime = peer("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    made = model(opset, given, outputs, told).SerializeToString()
    session = runtime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, dict(zip(INPUTS, given)))]


def compare(
    opset: int, batch: Batch, given: list[Array], training: bool, run: Any, narrowest: Any, shape: Any = None
) -> list[Array]:
    """Ours, held to theirs."""
    told: dict[str, Any] = {"epsilon": batch.eps, "momentum": batch.momentum}
    outputs = 1 if not training else 5 if opset < 14 else 3
    more = {"outputs": outputs} if opset < 14 else {"training_mode": int(training)}
    if opset >= 14:
        told.update(more)
    theirs = run(opset, [each.copy() for each in given], outputs, told)
    ours = OPSETS[opset](*given, **{**told, **more})
    ours = list(ours) if training else [ours]
    sizes = batch.sizes(frozen=not training)
    size_of_y = sizes.y if shape is None else sizes.y.reshape(-1)
    near(ours[0], theirs[0], computed=narrowest, size=size_of_y, count=batch.count)
    for mine, other, size in zip(ours[1:3], theirs[1:3], (sizes.mean + 4, sizes.var + 4)):
        near(mine, other, computed=narrowest, size=size, count=batch.count)
    if len(theirs) == 5:
        near(ours[3], theirs[3], computed=narrowest, size=sizes.mean, count=batch.count)
        # It calls an inverse standard deviation so; the specification, the variance.
        var = 1 / theirs[4].astype(float) ** 2 - batch.eps
        near(ours[4].astype(float), var, computed=narrowest, size=sizes.var + 4, count=batch.count)
    assert ours[0].dtype == theirs[0].dtype
    return theirs


def arrays(batch: Batch, kinds: tuple[str, str, str]) -> list[Array]:
    """The inputs, of the types T, T1 and T2; the batch gets what they hold."""
    t, t1, t2 = (DTYPES[kind] for kind in kinds)
    batch.dtype = t
    batch.x = batch.x.astype(t)
    batch.gamma, batch.beta = batch.gamma.astype(t1), batch.beta.astype(t1)
    batch.running_mean, batch.running_var = batch.running_mean.astype(t2), batch.running_var.astype(t2)
    # Attributes are of type float, and so is what is computed with them alone.
    batch.eps, batch.momentum = float(np.float32(batch.eps)), round(batch.momentum * 64) / 64
    print(kinds)
    return [batch.x, batch.gamma, batch.beta, batch.running_mean, batch.running_var]


def narrowest(kinds: Any) -> Any:
    return min((DTYPES[kind] for kind in kinds), key=lambda dtype: dtype.itemsize)


REAL = ("float16", "float32", "float64")
SAME = [(kind, kind, kind) for kind in REAL]
# The types that ONNX Runtime's CPU provider has.
OF_RUNTIME = {14: [*SAME, ("float16", "float16", "float32")]}
OF_RUNTIME[15] = [*OF_RUNTIME[14], ("float16", "float32", "float32")]
OF_RUNTIME[21] = OF_RUNTIME[15]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", range(8))
def test_runtime(rng: np.random.Generator, opset: int, training: bool, case: int) -> None:
    batch = Batch(rng, "float64")
    kinds = OF_RUNTIME.get(opset, SAME)
    chosen = kinds[case % len(kinds)]
    compare(opset, batch, arrays(batch, chosen), training, by_runtime, narrowest(chosen))


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", range(8))
def test_reference(rng: np.random.Generator, opset: int, training: bool, case: int) -> None:
    """Its statistics are of X's type, whatever theirs is: near() compares in the narrower of two."""
    batch = Batch(rng, "float64")
    t, t1, t2 = (str(rng.choice(REAL)) for _ in range(3))
    chosen = (t, t, t) if opset < 14 else (t, t, t2) if opset == 14 else (t, t1, t2)
    compare(opset, batch, arrays(batch, chosen), training, by_reference, narrowest(chosen))


@pytest.mark.parametrize("opset", [9, 14, 15])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_one_axis(rng: np.random.Generator, opset: int, training: bool) -> None:
    """The runtime runs it: the reference fails in training, where it looks for a second axis."""
    batch = Batch(rng, "float64", ranks=(2,), channels=1)
    given = arrays(batch, ("float32",) * 3)
    given[0] = given[0][:, 0].copy()
    compare(opset, batch, given, training, by_runtime, np.float32, given[0].shape)


@pytest.mark.parametrize("case", range(4))
def test_statistics_of_each_position(rng: np.random.Generator, case: int) -> None:
    """spatial=0, in inference: the reference fails, and the runtime does not train so."""
    batch = Batch(rng, "float32", ranks=(3, 4))
    of = batch.shape[1:]
    flat = rng.normal(size=(3, *of)).astype("f4")
    given = [batch.x, *flat, rng.uniform(0.3, 4, of).astype("f4")]
    told = {"epsilon": float(np.float32(batch.eps)), "spatial": 0}
    (theirs,) = by_runtime(7, given, 1, told)
    ours = bn.onnx.batch_normalization_7(*given, **told)
    x, scale, shift, mean, var = (each.astype(float) for each in given)
    size = abs(scale) * (abs(x) + abs(mean)) / np.sqrt(var) + abs(shift)
    near(ours, theirs, computed=np.float32, size=size)


def test_statistics_of_each_position_in_training_are_those_of_flattened_channels(rng: np.random.Generator) -> None:
    """The specification of opset 9 names flattening as the other way to have them."""
    batch = Batch(rng, "float32", ranks=(3,))
    of = batch.shape[1:]
    parameters = [*rng.normal(size=(3, *of)).astype("f4"), rng.uniform(0.3, 4, of).astype("f4")]
    told = {"epsilon": float(np.float32(batch.eps)), "momentum": 0.75}
    ours = bn.onnx.batch_normalization_7(batch.x, *parameters, **told, spatial=0, outputs=5)
    flat = [batch.x.reshape(len(batch.x), -1), *(each.ravel() for each in parameters)]
    theirs = by_reference(9, flat, 5, told)
    x = batch.x.astype(float)
    gamma = abs(parameters[0])
    most = abs(x).max(0) + abs(x.mean(0))
    size = gamma * most / np.sqrt(x.var(0) + told["epsilon"]) * (1 + most**2 / (x.var(0) + told["epsilon"])) + 4
    sizes = [np.broadcast_to(size, x.shape), most + 4, most**2 + 4]
    for mine, other, each in zip(ours, theirs, sizes):
        near(mine, other.reshape(mine.shape), computed=np.float32, size=each, count=len(x))


def test_y_does_not_depend_on_momentum(rng: np.random.Generator) -> None:
    """In training; versions of ONNX Runtime were seen of which it does."""
    batch = Batch(rng, "float32", ranks=(3,))
    given = arrays(batch, ("float32",) * 3)
    ys = []
    for momentum in (0.0, 0.5, 1.0):
        told = {"epsilon": batch.eps, "momentum": momentum, "training_mode": 1}
        ys.append(bn.onnx.batch_normalization_15(*given, **told)[0])
        theirs = by_reference(15, given, 3, told)[0]
        near(ys[-1], theirs, computed=np.float32, size=batch.sizes().y, count=batch.count)
    assert all(np.array_equal(ys[0], y) for y in ys)


def test_one_value_per_channel_is_trained_on_by_both(rng: np.random.Generator) -> None:
    given = [np.float32([[7, 9]]), *np.float32([[2, 3], [4, 5], [1, 1], [8, 16]])]
    told = {"momentum": 0.75, "training_mode": 1}
    for mine, other in zip(bn.onnx.batch_normalization_15(*given, **told), by_reference(15, given, 3, told)):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(("opset", "version"), [(7, 7), (8, 7), (9, 9), (13, 9), (14, 14), (15, 15), (21, 15)])
def test_names_and_defaults_are_those_of_the_schema(opset: int, version: int) -> None:
    schema = onnx.defs.get_schema("BatchNormalization", opset, "")
    assert schema.since_version == version
    code = OPSETS[opset].__code__
    names = code.co_varnames[: code.co_argcount]
    assert list(names) == [each.name for each in schema.inputs]
    defaults = OPSETS[opset].__kwdefaults__
    attributes = {name: onnx.helper.get_attribute_value(a.default_value) for name, a in schema.attributes.items()}
    assert defaults.keys() - {"outputs"} == attributes.keys()
    for name, value in attributes.items():
        assert np.float32(defaults[name]) == np.float32(value), name
