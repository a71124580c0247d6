# SPDX-License-Identifier: Apache-2.0
"""States of the frameworks themselves: theirs to ours and ours to theirs.

A layer of ours and theirs with one state agree in inference; then, over steps of training, in their running statistics,
which is what momentum and the bias of the variance mean.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from comparing import Array, Batch, near, peer
from states import attributes

import batchnorm as bn

os.environ["KERAS_BACKEND"] = "torch"
CASES = range(8)
FLOATS = ["float32", "float64"]


def steps(batch: Batch, ours: Any, theirs: Any, computed: Any = None) -> None:
    """Inference, training twice, and inference again; `theirs` gives y, and the running statistics after the call."""
    more: dict[str, Any] = {"computed": computed or batch.dtype, "count": batch.count}
    for training in (False, True, True, False):
        batch.running_mean, batch.running_var = ours.running_mean.copy(), ours.running_var.copy()
        ours.train(training)
        sizes = batch.sizes(frozen=not training, squares=training)
        y, mean, var = theirs(batch.x, training)
        near(ours(batch.x), y, size=sizes.y, **more)
        near(ours.running_mean, mean, size=sizes.mean + abs(batch.running_mean), **more)
        near(ours.running_var, var, size=sizes.var + batch.running_var, **more)


def ours_from(batch: Batch, there: dict[str, bool], **told: Any) -> bn.BatchNorm:
    """A layer of ours with the batch's arrays; of those that are not there the batch gets ones and zeros."""
    ours = bn.BatchNorm(batch.channels, batch.eps, batch.momentum, axis=batch.axis, dtype=batch.dtype, **told)
    for name, array in batch.arrays().items():
        setattr(ours, name, array if there.get(name, True) else None)
    if not there.get("gamma", True):
        batch.gamma = np.ones_like(batch.gamma)
    if not there.get("beta", True):
        batch.beta = np.zeros_like(batch.beta)
    return ours


def some(rng: np.random.Generator) -> dict[str, bool]:
    there = {"gamma": bool(rng.random() < 0.6), "beta": bool(rng.random() < 0.6)}
    print(there)
    return there


def same(first: Any, second: Any) -> bool:
    """Returns True if two layers are alike, bit for bit."""
    alike = (a is b is None or np.array_equal(a, b) for a, b in zip(attributes(first), attributes(second)))
    return (repr(first), first.num_batches_tracked) == (repr(second), second.num_batches_tracked) and all(alike)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_pytorch(rng: np.random.Generator, dtype: str, case: int) -> None:
    torch = peer("torch")
    batch = Batch(rng, dtype)
    there = some(rng)
    there["beta"] &= there["gamma"]
    ours = ours_from(batch, there)
    ours.num_batches_tracked = 11
    arrays, settings = bn.to_state(ours, "pytorch", prefix="1")
    kind = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[len(batch.shape)]
    theirs = getattr(torch.nn, kind)(**settings, dtype=getattr(torch, dtype))
    model = torch.nn.Sequential(torch.nn.Identity(), theirs)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()}, strict=True)

    def call(x: Array, training: bool) -> Any:
        y = model.train(training)(torch.from_numpy(x)).detach().numpy()
        return y, theirs.running_mean.numpy(), theirs.running_var.numpy()

    steps(batch, ours, call)
    told = {name: getattr(theirs, name) for name in ("eps", "momentum", "affine", "track_running_stats")}
    forms = model.state_dict(), {**dict(model.named_parameters()), **dict(model.named_buffers())}
    layers = [bn.from_state(form, "pytorch", prefix="1", **told) for form in forms]
    assert same(*layers)
    assert layers[0].num_batches_tracked == 13
    steps(batch, layers[0], call)


@pytest.mark.parametrize("case", range(4))
def test_defaults_of_pytorch(rng: np.random.Generator, case: int) -> None:
    """With their defaults and ours, of a layer without settings."""
    torch = peer("torch")
    affine, tracking = (bool(rng.random() < 0.5) for _ in range(2))
    theirs = torch.nn.BatchNorm1d(3, affine=affine, track_running_stats=tracking)
    ours = bn.from_state(theirs.state_dict(), "pytorch", num_features=3)
    assert same(ours, bn.BatchNorm(3, affine=affine, track_running_stats=tracking))
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum)


def test_halves_of_pytorch(rng: np.random.Generator) -> None:
    torch = peer("torch")
    for dtype in (torch.bfloat16, torch.float16):
        theirs = torch.nn.BatchNorm2d(4).to(dtype)
        torch.nn.init.normal_(theirs.weight)
        ours = bn.from_state(theirs.state_dict(), "pytorch")
        assert ours.dtype.name == ours.param_dtype.name == str(dtype).partition(".")[2]
        assert np.array_equal(ours.gamma.astype(np.float32), theirs.weight.detach().float().numpy())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_keras(rng: np.random.Generator, dtype: str, case: int) -> None:
    keras = peer("keras")
    batch = Batch(rng, dtype, axis="any")
    ours = ours_from(batch, some(rng), unbiased=False)
    arrays, settings = bn.to_state(ours, "keras", prefix="layer")
    theirs = keras.layers.BatchNormalization(**settings, name="layer", dtype=dtype)
    theirs.build(batch.shape)
    theirs.set_weights(list(arrays.values()))
    assert [variable.path for variable in theirs.variables] == list(arrays)

    def call(x: Array, training: bool) -> Any:
        y = theirs(x, training=training)
        return tuple(keras.ops.convert_to_numpy(each) for each in (y, theirs.moving_mean, theirs.moving_variance))

    steps(batch, ours, call, np.float32)  # which Keras rounds to on the way, of float64 too
    config = theirs.get_config()
    told = {name: config[name] for name in ("axis", "momentum", "epsilon", "center", "scale")}
    again = bn.from_state({each.path: each for each in theirs.variables}, "keras", prefix="layer", **told)
    steps(batch, again, call, np.float32)


def test_a_model_of_keras() -> None:
    """With the defaults of both."""
    keras = peer("keras")
    layer = keras.layers.BatchNormalization(name="bn1", center=False)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), layer], name="model")
    ours = bn.from_state({each.path: each for each in model.variables}, "keras", prefix="model/bn1")
    assert (ours.eps, 1 - ours.momentum, ours.axis) == (layer.epsilon, layer.momentum, layer.axis)
    assert ours.beta is None
    assert ours.num_features == 3
    halves = keras.layers.BatchNormalization(name="bn1", dtype="bfloat16")
    halves.build((None, 3))
    assert bn.from_state({each.path: each for each in halves.variables}, "keras", prefix="bn1").dtype.name == "bfloat16"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_linen(rng: np.random.Generator, dtype: str, case: int) -> None:
    linen = peer("flax.linen")
    from in_jax import jax

    traverse = peer("flax.traverse_util")
    batch = Batch(rng, dtype, axis="any")
    ours = ours_from(batch, some(rng), unbiased=False)
    arrays, settings = bn.to_state(ours, "flax", prefix="layer")
    variables = traverse.unflatten_dict(arrays, sep="/")

    class Model(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any, training: bool) -> Any:
            layer = linen.BatchNorm(use_running_average=not training, **settings, param_dtype=dtype, name="layer")
            return layer(x)

    model = Model()
    initial = model.init(jax.random.key(0), batch.x, True)
    flat = traverse.flatten_dict(initial, sep="/")
    assert {key: value.shape for key, value in flat.items()} == {key: value.shape for key, value in arrays.items()}

    def call(x: Array, training: bool) -> Any:
        y, changed = model.apply(variables, x, training, mutable=["batch_stats"])
        variables["batch_stats"] = changed["batch_stats"]
        return tuple(map(np.asarray, (y, *(changed["batch_stats"]["layer"][name] for name in ("mean", "var")))))

    steps(batch, ours, call)
    forms = variables, traverse.flatten_dict(variables, sep="/"), traverse.flatten_dict(variables)
    layers = [bn.from_state(form, "flax", prefix="layer", **settings) for form in forms]
    for again in layers:
        assert same(again, layers[0])
    steps(batch, layers[0], call)


def test_defaults_of_linen() -> None:
    linen = peer("flax.linen")
    from in_jax import jax

    theirs = linen.BatchNorm(use_running_average=False)
    ours = bn.from_state(theirs.init(jax.random.key(0), np.ones((2, 3))), "flax")
    assert (ours.eps, 1 - ours.momentum, ours.axis) == (theirs.epsilon, theirs.momentum, theirs.axis)
    assert ours.num_features == 3
    several = linen.BatchNorm(use_running_average=False, axis=(1, 2), param_dtype="bfloat16")
    variables = several.init(jax.random.key(0), np.ones((2, 3, 4)))
    ours = bn.from_state(variables, "flax", axis=(1, 2))
    assert ours.num_features == (3, 4)
    assert ours.dtype == np.float32  # of the statistics, which are so whatever the parameters are


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_nnx(rng: np.random.Generator, dtype: str, case: int) -> None:
    nnx = peer("flax.nnx")
    from in_jax import jnp

    batch = Batch(rng, dtype, axis="any")
    ours = ours_from(batch, some(rng), unbiased=False)
    arrays, settings = bn.to_state(ours, "nnx", prefix="layers/0")

    class Model(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.layers = nnx.List([nnx.BatchNorm(**settings, param_dtype=dtype, rngs=nnx.Rngs(0))])

    model = Model()
    theirs = model.layers[0]
    assert {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))} == set(arrays)
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, {"layers": {0: {key[9:]: jnp.asarray(value) for key, value in arrays.items()}}})
    nnx.update(model, state)

    def call(x: Array, training: bool) -> Any:
        y = theirs(jnp.asarray(x), use_running_average=not training)
        return tuple(map(np.asarray, (y, theirs.mean[...], theirs.var[...])))

    steps(batch, ours, call)
    told = {name: getattr(theirs, name) for name in settings}
    state = nnx.state(model)
    forms = state, nnx.to_pure_dict(state), dict(nnx.to_flat_state(state))
    layers = [bn.from_state(form, "nnx", prefix="layers/0", **told) for form in forms]
    for again in layers:
        assert same(again, layers[0])
    steps(batch, layers[0], call)


def test_defaults_of_nnx() -> None:
    nnx = peer("flax.nnx")
    theirs = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    ours = bn.from_state(nnx.state(theirs), "nnx", num_features=3)
    assert (ours.eps, 1 - ours.momentum, ours.axis) == (theirs.epsilon, theirs.momentum, theirs.axis)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_onnx(rng: np.random.Generator, dtype: str, case: int) -> None:
    """The arrays as initializers, in their order, and the settings as attributes, run by ONNX Runtime."""
    onnx, runtime = peer("onnx"), peer("onnxruntime")
    batch = Batch(rng, dtype)
    # Attributes are of type float, and so is what is computed with them alone.
    batch.eps, batch.momentum = float(np.float32(batch.eps)), float(rng.integers(1, 64)) / 64
    ours = ours_from(batch, some(rng), unbiased=False)

    def model(layer: bn.BatchNorm, training: bool) -> Any:
        arrays, settings = bn.to_state(layer, "onnx", prefix="bn1")
        outputs = ["Y", "mean", "var"] if training else ["Y"]
        told = {**settings, "training_mode": int(training)}
        node = onnx.helper.make_node("BatchNormalization", ["X", *arrays], outputs, **told)
        kind = onnx.helper.np_dtype_to_tensor_dtype(batch.dtype)
        shapes = [batch.shape] * 2 + [(batch.channels,)] * 2
        infos = [onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(("X", *outputs), shapes)]
        initializers = [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()]
        graph = onnx.helper.make_graph([node], "batchnorm", infos[:1], infos[1:], initializers)
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
        onnx.checker.check_model(made)
        return made

    def run(made: Any, x: Array) -> list[Array]:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(each) for each in session.run(None, {"X": x})]

    def call(x: Array, training: bool) -> Any:
        y, *statistics = run(model(ours, training), x)
        return (y, *(statistics or (ours.running_mean, ours.running_var)))

    steps(batch, ours, call)
    made = model(ours, False)
    names = "scale", "B", "input_mean", "input_var"
    assert list(made.graph.node[0].input) == ["X", *(f"bn1.{name}" for name in names)]
    state = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in made.graph.node[0].attribute}
    told = {name: attributes[name] for name in ("epsilon", "momentum")}
    again = bn.from_state(state, "onnx", prefix="bn1", **told)
    near(again.eval()(batch.x), run(made, batch.x)[0], batch.dtype, batch.sizes(frozen=True).y)


def test_names_and_defaults_of_the_operator() -> None:
    onnx = peer("onnx")
    schema = onnx.defs.get_schema("BatchNormalization", 15)
    assert [each.name for each in schema.inputs][1:] == list(bn.to_state(bn.BatchNorm(1), "onnx").arrays)
    defaults = {name: onnx.helper.get_attribute_value(each.default_value) for name, each in schema.attributes.items()}
    ours = bn.from_state(bn.to_state(bn.BatchNorm(1), "onnx").arrays, "onnx")
    assert np.float32(ours.eps) == np.float32(defaults["epsilon"])
    assert np.float32(1 - ours.momentum) == np.float32(defaults["momentum"])


@pytest.mark.parametrize("case", CASES)
def test_mlx(rng: np.random.Generator, case: int) -> None:
    nn, mx, utils = peer("mlx.nn"), peer("mlx.core"), peer("mlx.utils")
    batch = Batch(rng, "float32", axis="last", ranks=(2, 3, 4))
    batch.axis = -1
    is_affine = bool(rng.random() < 0.6)
    ours = ours_from(batch, {"gamma": is_affine, "beta": is_affine})
    batch.axis = len(batch.shape) - 1
    arrays, settings = bn.to_state(ours, "mlx", prefix="layers.0")
    model = nn.Sequential(nn.BatchNorm(**settings))
    assert {key for key, _ in utils.tree_flatten(model.parameters())} == set(arrays)
    model.load_weights([(key, mx.array(array)) for key, array in arrays.items()])
    theirs = model.layers[0]

    def call(x: Array, training: bool) -> Any:
        model.train(training)
        y = model(mx.array(x))
        return tuple(map(np.asarray, (y, theirs.running_mean, theirs.running_var)))

    steps(batch, ours, call)
    told = {name: getattr(theirs, name) for name in ("num_features", "eps", "momentum", "track_running_stats")}
    layers = [
        bn.from_state(form, "mlx", prefix=prefix, **told)
        for form, prefix in (
            (dict(utils.tree_flatten(model.parameters())), "layers.0"),
            (theirs.parameters(), ""),
        )
    ]
    assert same(*layers)
    steps(batch, layers[0], call)


def test_defaults_of_mlx() -> None:
    nn, mx = peer("mlx.nn"), peer("mlx.core")
    theirs = nn.BatchNorm(3)
    ours = bn.from_state(theirs.parameters(), "mlx")
    assert same(ours, bn.BatchNorm(3, theirs.eps, theirs.momentum, axis=-1))
    bare = nn.BatchNorm(3, affine=False, track_running_stats=False)
    ours = bn.from_state(bare.parameters(), "mlx", num_features=3)
    assert same(ours, bn.BatchNorm(3, axis=-1, affine=False, track_running_stats=False))
    theirs.set_dtype(mx.bfloat16)
    theirs.weight = mx.array([1.5, -2, 3], dtype=mx.bfloat16)
    ours = bn.from_state(theirs.parameters(), "mlx")
    assert ours.dtype.name == "bfloat16"
    assert ours.gamma.tolist() == [1.5, -2, 3]
    with pytest.raises(ValueError, match="eps"):
        nn.BatchNorm(3, eps=0)


@pytest.mark.parametrize("case", range(4))
def test_from_pytorch_to_keras(rng: np.random.Generator, case: int) -> None:
    """With the count of a batch, the running variance is what Keras would have taken."""
    torch, keras = peer("torch"), peer("keras")
    x = rng.normal(size=(int(rng.integers(2, 6)), 3)).astype(np.float32)
    first = torch.nn.BatchNorm1d(3, momentum=1.0)
    first(torch.from_numpy(x))
    ours = bn.from_state(first.state_dict(), "pytorch", momentum=1.0)
    arrays, settings = bn.to_state(ours, "keras", count=len(x))
    second = keras.layers.BatchNormalization(**settings)
    second(x, training=True)
    assert settings["momentum"] == 0
    near(arrays["moving_variance"], keras.ops.convert_to_numpy(second.moving_variance), np.float32, 100.0, len(x))
    near(bn.to_state(ours, "keras").arrays["moving_variance"], first.running_var.numpy(), np.float32, 0)
