# SPDX-License-Identifier: Apache-2.0
"""batchnorm.keras over the back end of KERAS_BACKEND (torch, if it is not set), beside the formulas in float64.

test_keras_layer_real_backends.py runs this file over the others.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import ml_dtypes
import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras_formulas import NAMES, POLICIES, Formulas, near  # noqa: E402
from pages import run  # noqa: E402

BACKEND = keras.backend.backend()
torch = pytest.importorskip("torch") if BACKEND == "torch" else None
jax = pytest.importorskip("jax") if BACKEND == "jax" else None
from batchnorm.keras import BatchNormalization, require  # noqa: E402

Theirs = keras.layers.BatchNormalization
Array = np.ndarray[Any, Any]
WITH_MASKS = BACKEND != "jax"  # over JAX, masks are Keras's own computation
HAS_RENORM = "renorm" in inspect.signature(Theirs.__init__).parameters  # not in Keras 3.4
WITH_GRADIENTS = BACKEND != "numpy"
gradients = pytest.mark.skipif(not WITH_GRADIENTS, reason="Keras has no gradients over NumPy")


def array(value: Any) -> Any:
    if value is None:
        return None
    if BACKEND == "torch":
        value = value.value if hasattr(value, "path") else value
        value = value.detach()
        is_bfloat16 = value.dtype == torch.bfloat16
        return value.float().numpy().astype(ml_dtypes.bfloat16) if is_bfloat16 else value.numpy()
    return np.asarray(value.value if hasattr(value, "path") else value)


def seen(layer: Any) -> Any:
    """The layer as the formulas read it."""
    told = {name: array(getattr(layer, name, None)) for name in NAMES}
    names = "axis", "momentum", "epsilon", "renorm", "renorm_clipping", "renorm_momentum", "trainable"
    return SimpleNamespace(**told, **{name: getattr(layer, name, None) for name in names})


def affine(layer: Any) -> list[Any]:
    """gamma and beta, or None; a layer of Keras 3.4 has no attribute then."""
    return [getattr(layer, name, None) for name in ("gamma", "beta")]


def step(layer: Any, x: Array, dy: Array, mask: Any, training: bool) -> list[Any]:
    """y, and the gradients of sum(dy * y) with respect to x, gamma and beta; the moving averages have moved."""
    parameters = [each for each in affine(layer) if each is not None]
    if BACKEND == "torch":
        kind = getattr(torch, str(x.dtype))
        given = torch.tensor(x.astype(float)).to(kind).requires_grad_()
        y = layer(given, training=training, mask=mask)
        if not (training and layer.trainable):
            return [array(y)]
        tensors = [given, *(each.value for each in parameters)]
        found = torch.autograd.grad(y, tensors, torch.tensor(dy.astype(float)).to(y.dtype))
    elif BACKEND == "jax":

        def loss(x: Any, trained: Any) -> Any:
            values = [trained.get(v.path, v.value) for v in layer.trainable_variables]
            others = [trained.get(v.path, v.value) for v in layer.non_trainable_variables]
            y, moved = layer.stateless_call(values, others, x, training=training, mask=mask)
            return (y.astype("float32" if y.dtype != "float64" else "float64") * dy.astype(float)).sum(), (y, moved)

        trained = {each.path: each.value for each in parameters}
        (_, (y, moved)), (dx, others) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, trained)
        found = [dx, *(others[each.path] for each in parameters)]
        for variable, value in zip(layer.non_trainable_variables, moved):
            variable.assign(value)
    else:
        return [array(layer(x, training=training, mask=mask)), None, None, None]
    rest = iter(found[1:])
    named = [next(rest) if each is not None else None for each in affine(layer)]
    return [array(y), array(found[0]), *map(array, named)]


def randomize(rng: np.random.Generator, layer: Any) -> None:
    for name in NAMES:
        variable = getattr(layer, name, None)
        if variable is not None:
            positive = name in ("moving_variance", "moving_stddev", "renorm_stddev")
            variable.assign(rng.uniform(0.5, 2, variable.shape) if positive else rng.normal(size=variable.shape))


@pytest.mark.parametrize("dtype", [name for name in POLICIES if name != "float64" or BACKEND != "jax"])
@pytest.mark.parametrize("case", range(15))
def test_sequences_of_calls(rng: np.random.Generator, dtype: str, case: int) -> None:
    """Any axis, with a mask and without, training and not, single values and none: y, weights and gradients."""
    compute, _, of_tensors, of_weights = POLICIES[dtype]
    rank = int(rng.integers(2, 5))
    axis = int(rng.integers(-rank, rank)) if rng.random() < 0.5 else -1
    channels = int(rng.integers(2, 5))
    told: dict[str, Any] = {"axis": axis, "momentum": 0.75, "epsilon": 0.25, "renorm_momentum": 0.5, "dtype": dtype}
    told.update({name: bool(rng.random() < p) for name, p in (("center", 0.6), ("scale", 0.6), ("renorm", 0.3))})
    limits = {"rmin": 0.6, "rmax": 1.3, "dmax": 0.4}
    told["renorm_clipping"] = {key: value for key, value in limits.items() if rng.random() < 0.5} or None
    if not HAS_RENORM:
        told = {name: value for name, value in told.items() if "renorm" not in name}
    print(told)
    if told.get("renorm"):  # r and d are Keras's, in float32
        of_tensors, of_weights = max(of_tensors, 2e-6), max(of_weights, 2e-6)
    layer = BatchNormalization(**told)
    layer.build([channels if a == axis % rank else None for a in range(rank)])
    randomize(rng, layer)
    for number in range(4):
        layer.trainable, training = bool(rng.random() < 0.9), bool(rng.random() < 0.8)
        shape = [int(n) for n in rng.choice([0, 1, 2, 5], rank, p=[0.05, 0.2, 0.35, 0.4])]
        shape[axis] = channels
        if BACKEND == "jax":
            shape = [max(n, 1) for n in shape]
        x, dy = ((values * 2).astype(compute) for values in rng.normal(0.5, size=(2, *shape)))
        mask = None
        if WITH_MASKS and axis % rank == rank - 1 and rng.random() < 0.5:
            lengths = [1 if rng.random() < 0.2 else n for n in shape[:-1]]
            mask = rng.random(lengths) < rng.choice([0, 0.5, 0.9])
        print(f"step {number}: x {shape}, training {training}, trainable {layer.trainable}, mask {mask}")
        trains = training and layer.trainable
        if 0 in shape and not trains:
            continue  # which are Keras's
        formulas = Formulas(seen(layer), x, mask, training)
        y, weights = formulas.result()
        mine, *derived = step(layer, x, dy, mask, training)
        assert mine.dtype == compute
        near(mine, y, of_tensors if trains or not WITH_GRADIENTS else max(of_tensors, 2e-6), 1)
        for name in NAMES:
            near(array(getattr(layer, name, None)), weights[name], of_weights, 1)
        if not WITH_GRADIENTS or not trains:
            continue  # evaluation is Keras's, and in float32
        # Beside single values, sums of the gradient are products of large numbers.
        size = 4 * (1 + abs(dy.astype(float)).sum() ** 0.5)
        for found, expected in zip(derived, formulas.gradients(dy)):
            near(found, expected, max(of_tensors, of_weights), size)


@pytest.mark.parametrize("masked", [False, True] if WITH_MASKS else [False])
def test_far_from_zero(rng: np.random.Generator, masked: bool) -> None:
    """A mean of 10,000 standard deviations: y is exact where Keras's has no right digit."""
    x = rng.normal(10_000, 1, size=(64, 9, 3)).astype("f4")
    mask = rng.random((64, 9)) < 0.7 if masked else None
    counted = x.astype(float)[mask] if masked else x.astype(float).reshape(-1, 3)
    expected = (x - counted.mean(0)) / np.sqrt(counted.var(0) + 1e-3)
    layer, theirs = BatchNormalization(momentum=0.0), Theirs(momentum=0.0)
    for each in (layer, theirs):
        each.build(x.shape)
    assert abs(array(layer(x, training=True, mask=mask)) - expected).max() < 1e-6
    assert np.allclose(array(layer.moving_variance), counted.var(0), rtol=1e-6)
    if not masked and BACKEND == "torch":
        assert not abs(array(theirs(x, training=True)) - expected).max() < 0.1  # or NaN


def test_weights_and_configs_are_those_of_keras(rng: np.random.Generator) -> None:
    told = {
        "axis": 1,
        "momentum": 0.5,
        "epsilon": 0.1,
        **({"renorm": True, "renorm_clipping": {"rmax": 2.0}} if HAS_RENORM else {}),
        "gamma_initializer": keras.initializers.RandomNormal(seed=3),
        "gamma_regularizer": keras.regularizers.L2(0.125),
        "beta_constraint": keras.constraints.MaxNorm(1.0),
        "name": "one",
    }
    layer, theirs = BatchNormalization(**told), Theirs(**told)
    assert layer.get_config() == theirs.get_config()
    assert BatchNormalization.from_config(theirs.get_config()).get_config() == layer.get_config()
    x = rng.normal(1, 2, size=(6, 3, 4)).astype("f4")
    for each in (layer, theirs):
        each.build(x.shape)
    randomize(rng, theirs)
    layer.set_weights(theirs.get_weights())
    assert [v.path for v in layer.weights] == [v.path for v in theirs.weights]
    assert len(layer.trainable_weights) == 2
    assert float(sum(map(keras.ops.sum, layer.losses))) == pytest.approx(float(sum(map(keras.ops.sum, theirs.losses))))
    for training in (True, False):
        assert np.allclose(array(layer(x, training=training)), array(theirs(x, training=training)), atol=1e-5)
        assert all(np.allclose(a, b, rtol=1e-5) for a, b in zip(layer.get_weights(), theirs.get_weights()))
    assert isinstance(layer, Theirs)
    assert layer.compute_output_shape((None, 3, 4)) == (None, 3, 4)


LOAD = """
import sys, numpy as np, keras
data = np.load(sys.argv[1] + "/data.npz")
try:
    model = keras.saving.load_model(sys.argv[1] + "/model.keras")
    y = keras.ops.convert_to_numpy(model(data["x"]))
    print(type(model.layers[1]), abs(y - data["y"]).max().round(5))
except TypeError as error:
    print("TypeError", error)
"""


def model_of(layer: type) -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, use_bias=False),
            layer(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(6, 3),
            layer(scale=False),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


@gradients
@pytest.mark.parametrize("jit", [False, True] if BACKEND == "jax" else [False])
def test_a_model_learns_as_with_keras(rng: np.random.Generator, jit: bool) -> None:
    x = rng.normal(0.3, 2, size=(96, 8, 8, 2)).astype("f4")
    target = rng.integers(0, 3, 96)
    losses = []
    for kind in (BatchNormalization, Theirs):
        model = model_of(kind)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, 0.9), loss, jit_compile=jit)
        losses.append(model.fit(x, target, batch_size=32, epochs=3, shuffle=False, verbose=0).history["loss"])
        losses[-1].append(model.evaluate(x, target, verbose=0))
        assert all(np.isfinite(w).all() for w in model.get_weights())
    assert losses[0][2] < losses[0][0]
    assert np.allclose(*losses, rtol=1e-3)


def test_models_are_saved_and_loaded(rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.normal(1, 2, size=(16, 8, 8, 2)).astype("f4")
    model = model_of(BatchNormalization)
    model(x, training=True)
    expected = array(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(each) for each in loaded.layers] == [type(each) for each in model.layers]
    assert np.array_equal(array(loaded(x)), expected)
    np.savez(tmp_path / "data.npz", x=x, y=expected)
    is_loaded = "<class 'batchnorm.keras.BatchNormalization'> 0.0"
    # Without the import, Keras says which class it lacks; older versions import it themselves.
    for importing, said in (("import batchnorm.keras", ""), ("", "Could not locate class 'BatchNormalization'")):
        command = [sys.executable, "-W", "ignore", "-c", f"{importing}\n{LOAD}", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert is_loaded in done.stdout or (said and said in done.stdout), done.stdout + done.stderr


def test_a_model_of_keras_is_converted(rng: np.random.Generator) -> None:
    x = rng.normal(1, 2, size=(16, 8, 8, 2)).astype("f4")
    model = model_of(Theirs)
    model(x, training=True)

    def exchanged(layer: Any) -> Any:
        kind = BatchNormalization if type(layer) is Theirs else type(layer)
        return kind.from_config(layer.get_config())

    converted = keras.models.clone_model(model, clone_function=exchanged)
    converted.set_weights(model.get_weights())
    assert sum(type(each) is BatchNormalization for each in converted.layers) == 2
    assert np.allclose(array(converted(x)), array(model(x)), atol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
def test_graphs_and_second_derivatives(rng: np.random.Generator) -> None:
    layer, theirs = BatchNormalization(epsilon=0.1), Theirs(epsilon=0.1)
    x = torch.tensor(rng.normal(size=(6, 4, 3)).astype("f4"))
    for each in (layer, theirs):
        each.build(x.shape)

    def second(each: Any) -> Any:
        given = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad((each(given, training=True) ** 3).sum(), given, create_graph=True)
        return torch.autograd.grad((dx**2).sum(), given)[0]

    assert torch.allclose(second(layer), second(theirs), rtol=1e-3, atol=1e-3)

    def stateless(each: Any) -> Any:
        values = [[v.value.detach() for v in vs] for vs in (each.trainable_variables, each.non_trainable_variables)]
        return lambda t: each.stateless_call(*values, t, training=True)[0]

    for transform in (torch.func.jacrev, torch.func.jacfwd):
        mine, other = (transform(stateless(each))(x) for each in (layer, theirs))
        assert torch.allclose(mine, other, atol=1e-5)
    graph = torch.fx.experimental.proxy_tensor.make_fx(stateless(layer))(x)
    assert torch.allclose(graph(x), stateless(layer)(x), atol=1e-5)
    assert len(graph.graph.nodes) > 8


def test_a_mask_that_differs_between_channels_is_left_to_keras(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 3, 4)).astype("f4")
    mask = np.arange(18).reshape(6, 3) % 4 != 0
    layer, theirs = BatchNormalization(axis=1), Theirs(axis=1)
    for each in (layer, theirs):
        each.build(x.shape)
    assert np.array_equal(
        *(array(each(x, training=True, mask=keras.ops.convert_to_tensor(mask))) for each in (layer, theirs))
    )
    with pytest.raises(ValueError, match="one dimension less"):
        layer(x, training=True, mask=keras.ops.convert_to_tensor(mask[0]))


def test_masks_come_from_the_layer_before(rng: np.random.Generator) -> None:
    tokens = rng.integers(0, 3, size=(5, 7))
    tokens[0] = 1
    model = keras.Sequential([keras.layers.Embedding(3, 4, mask_zero=True), BatchNormalization(momentum=0.0)])
    model(tokens, training=True)
    counted = array(model.layers[0].embeddings)[tokens][tokens != 0]
    assert np.allclose(array(model.layers[1].moving_mean), counted.mean(0), atol=1e-6)


@gradients
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("keras.md")


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="synchronized"):
        BatchNormalization(synchronized=True)
    with pytest.raises(ImportError, match=r"^batchnorm.keras works with Keras 3.4 and newer, but this is 2.15.0$"):
        require.check("2.15.0", "torch")
    with pytest.raises(ImportError, match="over jax, numpy, torch, but this is over tensorflow: set KERAS_BACKEND"):
        require.check("3.15.1", "tensorflow")
