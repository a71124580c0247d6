# SPDX-License-Identifier: Apache-2.0
"""from_state() and to_state(): keys, what settings mean, and what is refused. The frameworks themselves are peers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import python

import batchnorm as bn

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Each framework's keys of gamma, beta, mean and variance, written out; the layer is at "a", in "a/b" nested.
KEYS = {
    "pytorch": ["a.weight", "a.bias", "a.running_mean", "a.running_var"],
    "keras": ["a/gamma", "a/beta", "a/moving_mean", "a/moving_variance"],
    "flax": ["params/a/scale", "params/a/bias", "batch_stats/a/mean", "batch_stats/a/var"],
    "nnx": ["a/scale", "a/bias", "a/mean", "a/var"],
    "onnx": ["a.scale", "a.B", "a.input_mean", "a.input_var"],
    "mlx": ["a.weight", "a.bias", "a.running_mean", "a.running_var"],
}
FRAMEWORKS = list(KEYS)
# What a constructor without arguments means: eps, weight of the new batch, whether unbiased, axis.
DEFAULTS = {
    "pytorch": (1e-5, 0.1, True, 1),
    "keras": (1e-3, 0.01, False, -1),
    "flax": (1e-5, 0.01, False, -1),
    "nnx": (1e-5, 0.01, False, -1),
    "onnx": (1e-5, 0.1, False, 1),
    "mlx": (1e-5, 0.1, True, -1),
}
EPS = {"pytorch": "eps", "mlx": "eps", "keras": "epsilon", "flax": "epsilon", "nnx": "epsilon", "onnx": "epsilon"}
IS_DECAY = {"pytorch": False, "mlx": False, "keras": True, "flax": True, "nnx": True, "onnx": True}


def arrays_of(rng: np.random.Generator, channels: int = 3, dtype: Any = np.float32) -> list[Array]:
    """gamma, beta, mean and variance."""
    gamma, beta, mean = rng.normal(size=(3, channels))
    return [each.astype(dtype) for each in (gamma, beta, mean, rng.uniform(0.2, 3, channels))]


def state_of(framework: str, arrays: list[Array]) -> dict[str, Any]:
    return dict(zip(KEYS[framework], arrays))


def layer_for(framework: str, channels: int = 3, **told: Any) -> bn.BatchNorm:
    """A layer that the framework has words for."""
    return bn.BatchNorm(channels, **{"axis": DEFAULTS[framework][3], **told})


def attributes(layer: bn.BatchNorm) -> list[Any]:
    return [layer.gamma, layer.beta, layer.running_mean, layer.running_var]


def with_separator(state: dict[str, Any], separator: str) -> dict[str, Any]:
    return {key.replace("/", separator).replace(".", separator): value for key, value in state.items()}


def nested(state: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in state.items():
        *above, own = key.replace(".", "/").split("/")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[own] = value
    return tree


FORMS = {
    "as it is": lambda state: state,
    "dots": lambda state: with_separator(state, "."),
    "slashes": lambda state: with_separator(state, "/"),
    "nested": nested,
    "tuples": lambda state: {tuple(key.replace(".", "/").split("/")): value for key, value in state.items()},
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["a", "a.", "a/"])
def test_keys(rng: np.random.Generator, framework: str, form: str, prefix: str) -> None:
    arrays = arrays_of(rng)
    layer = bn.from_state(FORMS[form](state_of(framework, arrays)), framework, prefix=prefix)
    for ours, given in zip(attributes(layer), arrays):
        assert np.array_equal(ours, given)
        assert ours.dtype == given.dtype
        assert not np.shares_memory(ours, given)
        assert ours.flags.writeable
    assert layer.num_batches_tracked == 0
    assert layer.training


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_defaults(rng: np.random.Generator, framework: str) -> None:
    layer = bn.from_state(state_of(framework, arrays_of(rng)), framework, prefix="a")
    eps, momentum, unbiased, axis = DEFAULTS[framework]
    assert layer.eps == eps
    assert layer.momentum == pytest.approx(momentum, rel=1e-14)
    assert layer.unbiased is unbiased
    assert layer.axis == axis
    assert layer.dtype == layer.param_dtype == np.float32


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", range(6))
def test_inference_and_a_step_of_training(rng: np.random.Generator, framework: str, case: int) -> None:
    """Against the formulas in float64, with momentum and variance in the framework's sense."""
    channels, momentum, eps = int(rng.integers(1, 7)), float(rng.uniform(0, 1)), float(rng.uniform(1e-4, 0.1))
    axis = int(rng.integers(1, 4))
    shape = [int(n) for n in rng.integers(2, 5, 4)]
    shape[axis] = channels
    print(f"shape {shape}, axis {axis}, momentum {momentum}, eps {eps}")
    gamma, beta, mean, var = arrays_of(rng, channels, np.float64)
    x = rng.normal(size=shape) * 2 + 1
    over, spread = tuple(a for a in range(4) if a != axis), [channels if a == axis else 1 for a in range(4)]

    told = {EPS[framework]: eps, "momentum": momentum}
    state = state_of(framework, [gamma, beta, mean, var])
    layer = bn.from_state(state, framework, prefix="a", axis=axis, **told)
    layer.eval()
    scale = gamma / np.sqrt(var + eps)
    expected = (x - mean.reshape(spread)) * scale.reshape(spread) + beta.reshape(spread)
    assert np.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
    layer.train()
    layer(x)
    old = momentum if IS_DECAY[framework] else 1 - momentum
    of_batch = x.var(over, ddof=1 if DEFAULTS[framework][2] else 0)
    assert np.allclose(layer.running_mean, old * mean + (1 - old) * x.mean(over), rtol=1e-12)
    assert np.allclose(layer.running_var, old * var + (1 - old) * of_batch, rtol=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", range(6))
def test_there_and_back(rng: np.random.Generator, framework: str, case: int) -> None:
    dtype = [np.float32, np.float64, np.float16, BFLOAT16][int(rng.integers(4))]
    layer = layer_for(framework, 4, eps=0.25, momentum=0.375, dtype=dtype, param_dtype=dtype)
    for name, array in zip(("gamma", "beta", "running_mean", "running_var"), arrays_of(rng, 4, dtype)):
        setattr(layer, name, array)
    layer.num_batches_tracked = 7
    arrays, settings = bn.to_state(layer, framework, prefix="a")
    counts = {"a.num_batches_tracked": 7} if framework == "pytorch" else {}
    assert list(arrays) == [*KEYS[framework], *counts]
    for key, ours in zip(KEYS[framework], attributes(layer)):
        assert np.array_equal(arrays[key], ours)
        assert not np.shares_memory(arrays[key], ours)
        assert arrays[key].dtype == dtype
    for key, count in counts.items():
        assert arrays[key].dtype == np.int64
        assert arrays[key].shape == ()
        assert arrays[key] == count
    assert settings["momentum"] == (0.625 if IS_DECAY[framework] else 0.375)
    assert settings[EPS[framework]] == 0.25
    axis = settings.pop("axis", None)
    again = bn.from_state(arrays, framework, prefix="a", axis=axis, unbiased=True, **settings)
    assert repr(again) == repr(layer)
    assert again.num_batches_tracked == (7 if counts else 0)
    for mine, theirs in zip(attributes(again), attributes(layer)):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_keys_with_a_separator_in_the_prefix(framework: str) -> None:
    for prefix in ("a", "a/" if "/" in KEYS[framework][0] else "a."):
        assert list(bn.to_state(layer_for(framework), framework, prefix=prefix).arrays)[:4] == KEYS[framework]
    nested_one = [
        key.replace("a", "b.a", 1) if framework != "flax" else key.replace("/a/", "/b.a/") for key in KEYS[framework]
    ]
    assert list(bn.to_state(layer_for(framework), framework, prefix="b.a").arrays)[:4] == nested_one
    bare = [key.replace("/a/", "/") if framework == "flax" else key[2:] for key in KEYS[framework]]
    assert list(bn.to_state(layer_for(framework), framework).arrays)[:4] == bare


def test_settings() -> None:
    """Those that a constructor takes, written out."""
    first, last = (bn.BatchNorm(3, axis=axis, momentum=0.25, eps=0.5) for axis in (1, -1))
    affine = {"affine": True, "track_running_stats": True}
    uses = {"use_scale": True, "use_bias": True}
    expected: dict[str, Any] = {
        "pytorch": {"num_features": 3, "momentum": 0.25, "eps": 0.5, **affine},
        "keras": {"axis": 1, "momentum": 0.75, "epsilon": 0.5, "scale": True, "center": True},
        "flax": {"axis": 1, "momentum": 0.75, "epsilon": 0.5, **uses},
        "nnx": {"num_features": 3, "axis": 1, "momentum": 0.75, "epsilon": 0.5, **uses},
        "onnx": {"momentum": 0.75, "epsilon": 0.5},
        "mlx": {"num_features": 3, "momentum": 0.25, "eps": 0.5, **affine},
    }
    for framework, settings in expected.items():
        assert bn.to_state(last if framework == "mlx" else first, framework).settings == settings


# Whether gamma and beta are there, and what says so.
AFFINE: dict[str, dict[tuple[bool, bool], dict[str, bool]]] = {
    "pytorch": {(True, False): {"affine": True, "bias": False}, (False, False): {"affine": False}},
    "keras": {
        (True, False): {"scale": True, "center": False},
        (False, True): {"scale": False, "center": True},
        (False, False): {"scale": False, "center": False},
    },
    "flax": {
        (True, False): {"use_scale": True, "use_bias": False},
        (False, True): {"use_scale": False, "use_bias": True},
        (False, False): {"use_scale": False, "use_bias": False},
    },
    "mlx": {(False, False): {"affine": False}},
}
AFFINE["nnx"] = AFFINE["flax"]
PARTS = [(framework, there) for framework, kinds in AFFINE.items() for there in kinds]


@pytest.mark.parametrize(("framework", "there"), PARTS)
def test_without_gamma_or_beta(rng: np.random.Generator, framework: str, there: tuple[bool, bool]) -> None:
    arrays = arrays_of(rng)
    state = state_of(framework, arrays)
    for key, is_there in zip(KEYS[framework], there):
        if not is_there:
            del state[key]
    layer = bn.from_state(state, framework, prefix="a")
    assert (layer.gamma is not None, layer.beta is not None) == there
    assert layer.affine is any(there)
    assert np.array_equal(layer.running_var, arrays[3])
    back, settings = bn.to_state(layer, framework, prefix="a")
    assert [key for key in back if "num_batches" not in key] == list(state)
    flags = AFFINE[framework][there]
    assert {name: value for name, value in settings.items() if name in flags} == flags
    again = bn.from_state(state, framework, prefix="a", **flags)
    assert (again.gamma is not None, again.beta is not None) == there


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dropped", range(4))
def test_what_has_to_be_there(rng: np.random.Generator, framework: str, dropped: int) -> None:
    """With one array less: an error that names it, unless the framework has layers without."""
    state = state_of(framework, arrays_of(rng))
    del state[KEYS[framework][dropped]]
    if dropped in {"pytorch": [1], "keras": [0, 1], "flax": [0, 1], "nnx": [0, 1]}.get(framework, []):
        assert attributes(bn.from_state(state, framework, prefix="a"))[dropped] is None
    else:
        with pytest.raises(KeyError, match=f"^{KEYS[framework][dropped]} is missing"):
            bn.from_state(state, framework, prefix="a")


@pytest.mark.parametrize("framework", ["pytorch", "mlx"])
def test_without_running_statistics(rng: np.random.Generator, framework: str) -> None:
    state = dict(list(state_of(framework, arrays_of(rng)).items())[:2])
    layer = bn.from_state(state, framework, prefix="a", track_running_stats=False)
    assert layer.running_mean is None
    assert layer.running_var is None
    assert not layer.track_running_stats
    arrays, settings = bn.to_state(layer, framework, prefix="a")
    assert list(arrays) == KEYS[framework][:2]
    assert settings["track_running_stats"] is False
    told = {**settings, "affine": False}
    for empty in ({}, {"b.weight": np.ones(2)}):
        layer = bn.from_state(empty, framework, prefix="a", **told)
        assert layer.num_features == 3
        assert attributes(layer) == [None] * 4
        assert layer.dtype == np.float32
    with pytest.raises(KeyError, match="a.running_mean is missing, but track_running_stats is True"):
        bn.from_state(state, framework, prefix="a", track_running_stats=True)


@pytest.mark.parametrize("framework", ["keras", "flax", "nnx", "onnx"])
def test_frameworks_that_always_track(rng: np.random.Generator, framework: str) -> None:
    state = dict(list(state_of(framework, arrays_of(rng)).items())[:2])
    with pytest.raises(KeyError, match=f"{KEYS[framework][2]} is missing"):
        bn.from_state(state, framework, prefix="a")
    layer = layer_for(framework, track_running_stats=False)
    with pytest.raises(ValueError, match=f"running_mean is None, which {framework} has in every layer"):
        bn.to_state(layer, framework)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_array_whose_dtype_was_changed_in_place() -> None:
    layer = bn.BatchNorm(2)
    layer.running_mean.dtype = np.int32
    with pytest.raises(TypeError, match="running_mean has dtype int32, expected float32"):
        bn.to_state(layer, "keras")


def test_onnx_has_all_arrays() -> None:
    layer = bn.BatchNorm(2, affine=False)
    arrays = bn.to_state(layer, "onnx").arrays
    assert list(arrays) == ["scale", "B", "input_mean", "input_var"]
    assert arrays["scale"].tolist() == [1, 1]
    assert arrays["B"].tolist() == [0, 0]
    assert arrays["scale"].dtype == arrays["B"].dtype == np.float32
    assert layer.gamma is None


@pytest.mark.parametrize(
    "tracked",
    [5, np.int64(5), np.array(5), np.array(5, np.int32), np.array(5, np.uint8), [5], np.full((1, 1), 5), 5.0, [5.0]],
)
def test_counts(tracked: Any) -> None:
    state = {**bn.BatchNorm(2).state_dict(), "num_batches_tracked": tracked}
    layer = bn.from_state(state, "pytorch")
    assert layer.num_batches_tracked == 5
    assert type(layer.num_batches_tracked) is int


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track_running_stats", [True, False])
def test_it_agrees_with_load_state_dict(rng: np.random.Generator, affine: bool, track_running_stats: bool) -> None:
    told: dict[str, Any] = {"affine": affine, "track_running_stats": track_running_stats}
    layer = bn.BatchNorm(3, **told)
    layer(rng.normal(size=(5, 3)).astype(np.float32))
    state = layer.state_dict()
    loaded = bn.BatchNorm(3, **told)
    loaded.load_state_dict(state)
    made = bn.from_state(state, "pytorch", num_features=3)
    assert repr(made) == repr(loaded)
    for mine, theirs in zip(attributes(made), attributes(loaded)):
        assert mine is theirs is None or np.array_equal(mine, theirs)
    assert made.num_batches_tracked == loaded.num_batches_tracked
    arrays = bn.to_state(layer, "pytorch").arrays
    assert list(arrays) == list(state)
    assert all(np.array_equal(arrays[key], state[key]) for key in state)
    loaded.load_state_dict(arrays)


def test_several_axes(rng: np.random.Generator) -> None:
    gamma, mean = rng.normal(size=(2, 3, 4))
    var = rng.uniform(1, 2, (3, 4))
    state = {"params": {"scale": gamma}, "batch_stats": {"mean": mean, "var": var}}
    layer = bn.from_state(state, "flax", axis=(1, 2))
    assert layer.num_features == (3, 4)
    row = {"params": {"scale": gamma[:1]}, "batch_stats": {"mean": mean[:1], "var": var[:1]}}
    assert bn.from_state(row, "flax", axis=(1, 2)).num_features == (1, 4)
    arrays, settings = bn.to_state(layer, "flax")
    assert settings["axis"] == (1, 2)
    assert arrays["params/scale"].shape == (3, 4)
    layer.running_mean = layer.running_mean.ravel()
    assert bn.to_state(layer, "flax").arrays["batch_stats/mean"].shape == (3, 4)
    for framework, expected in (("keras", "one axis"), ("nnx", "one axis"), ("pytorch", "1"), ("mlx", "-1")):
        with pytest.raises(ValueError, match=rf"axis is \(1, 2\), expected {expected}"):
            bn.to_state(layer, framework)


# Values and dtypes


@pytest.mark.parametrize(
    ("dtypes", "dtype", "expected"),
    [
        (["f4", "f4"], None, ("f4", "f4")),
        (["f8", "f8"], None, ("f8", "f8")),
        (["f2", "f2"], None, ("f2", "f2")),
        ([BFLOAT16, BFLOAT16], None, (BFLOAT16, BFLOAT16)),
        (["V2", "V2"], None, (BFLOAT16, BFLOAT16)),
        ([">f4", ">f4"], None, ("f4", "f4")),
        (["f4", "f8"], None, ("f8", "f8")),
        ([BFLOAT16, "f4"], None, ("f4", "f4")),
        ([BFLOAT16, "f2"], None, ("f4", "f4")),
        (["f4", "f4"], BFLOAT16, (BFLOAT16, "f4")),
        (["f4", "f4"], "f2", ("f2", "f4")),
        (["f2", "f2"], "f2", ("f2", "f2")),
        ([BFLOAT16, BFLOAT16], "f2", ("f2", "f4")),
        ([BFLOAT16, BFLOAT16], "f4", ("f4", "f4")),
        (["f4", "f4"], "f8", ("f8", "f8")),
    ],
)
def test_dtypes(rng: np.random.Generator, dtypes: list[Any], dtype: Any, expected: tuple[Any, Any]) -> None:
    """Parameters of one dtype, statistics of the other: nothing loses digits."""
    arrays = []
    for array, given in zip(arrays_of(rng), [dtypes[0]] * 2 + [dtypes[1]] * 2):
        rounded = array.astype(BFLOAT16 if given == "V2" else given)
        arrays.append(rounded.view("V2") if given == "V2" else rounded)
    layer = bn.from_state(state_of("nnx", arrays), "nnx", prefix="a", dtype=dtype)
    assert (layer.dtype, layer.param_dtype) == tuple(np.dtype(each) for each in expected)
    for ours, given in zip(attributes(layer), arrays):
        numbers = given.view(BFLOAT16) if given.dtype == np.dtype("V2") else given
        assert ours.dtype == layer.param_dtype
        assert ours.dtype.isnative
        assert np.array_equal(ours.astype(float), numbers.astype(float))
    assert layer(np.ones((2, 3), layer.dtype)).dtype == layer.dtype


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        ("f8", "f4", "dtype is float32, but the arrays are of float64: digits would be lost"),
        ("f8", "f2", "dtype is float16, but the arrays are of float64"),
        ("f4", "i4", "dtype is int32, expected float32, float64, float16 or bfloat16"),
    ],
)
def test_dtypes_that_would_not_do(rng: np.random.Generator, given: str, dtype: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        bn.from_state(state_of("keras", arrays_of(rng, dtype=given)), "keras", prefix="a", dtype=dtype)


class Tensor:
    """As PyTorch's: not for NumPy as long as it has a gradient, or elements of bfloat16."""

    def __init__(self, array: Array, gradient: bool = False) -> None:
        self.array, self.gradient = array, gradient
        self.dtype = "torch.bfloat16" if array.dtype == BFLOAT16 else str(array.dtype)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        assert not self.gradient
        assert self.dtype != "torch.bfloat16"
        return self.array

    def detach(self) -> Tensor:
        return Tensor(self.array)

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self.array.astype(np.float32))


@pytest.mark.parametrize("dtype", ["f4", BFLOAT16])
def test_tensors(rng: np.random.Generator, dtype: Any) -> None:
    arrays = arrays_of(rng, dtype=dtype)
    state = state_of("pytorch", [Tensor(array, gradient=True) for array in arrays])
    layer = bn.from_state(state, "pytorch", prefix="a")
    for ours, given in zip(attributes(layer), arrays):
        assert np.array_equal(ours, given)
        assert ours.dtype == given.dtype


def test_bfloat16_without_its_package() -> None:
    code = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np
import batchnorm as bn
try:
    bn.from_state({"weight": np.zeros(2, "V2")}, "pytorch")
except TypeError as error:
    print(error)
"""
    done = python(code)
    assert done.stdout == "weight is of bfloat16, a dtype of the package ml_dtypes, which is not installed\n", done


class Unwilling:
    dtype = np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise RuntimeError("no values yet")


MASKED = np.ma.masked_equal(np.float32([1, 2, 3]), 2)
HUGE = np.array([1, np.inf, 1], np.float32)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, np.ones(4, "f4"), ValueError, r"{key1} has shape \(3,\), expected \(4,\), as {key0} has"),
        (3, np.ones((3, 2), "f4"), ValueError, r"{key3} has shape \(3, 2\), expected one element per channel along"),
        (3, np.ones((1, 3, 1, 2), "f4"), ValueError, r"{key3} has shape \(1, 3, 1, 2\), expected one element per"),
        (2, np.float32(1), ValueError, "{key2} is a single number, expected one element per channel"),
        (1, np.ones(0, "f4"), ValueError, r"{key1} has shape \(0,\), expected at least one channel"),
        (0, np.ones(3, "i8"), TypeError, "{key0} has dtype int64, expected float32, float64, float16 or bfloat16"),
        (3, np.ones(3, bool), TypeError, "{key3} has dtype bool, expected float32"),
        (2, np.ones(3, "c8"), TypeError, "{key2} has dtype complex64"),
        (1, np.array([None] * 3), TypeError, "{key1} has dtype object"),
        (0, None, TypeError, "{key0} is None, expected an array"),
        (0, ["1", "2", "3"], TypeError, "{key0} has dtype <U1"),
        (1, [[1.0], [1.0, 2.0]], TypeError, "{key1} is of type list, expected an array"),
        (2, MASKED, TypeError, "{key2} is a masked array"),
        (1, Unwilling(), TypeError, "{key1} is of type .*Unwilling, expected an array: no values yet"),
        (2, np.float32([0, 1, np.nan]), ValueError, "{key2} is nan in channel 2, expected finite numbers"),
        (2, HUGE, ValueError, "{key2} is inf in channel 1, expected finite numbers"),
        (3, HUGE, ValueError, "{key3} is inf in channel 1, expected finite numbers of at least -eps"),
        (3, np.float32([np.nan, 1, 1]), ValueError, "{key3} is nan in channel 0"),
        (3, np.float32([1, 1, -1.01e-3]), ValueError, r"{key3} is -0.00101 in channel 2, expected .* -eps \(-0.001\)"),
        (3, np.float32([1, -np.inf, 1]), ValueError, "{key3} is -inf in channel 1"),
    ],
)
def test_values_that_would_not_do(
    rng: np.random.Generator, framework: str, index: int, value: Any, error: type[Exception], message: str
) -> None:
    keys = KEYS[framework]
    state = state_of(framework, arrays_of(rng))
    state[keys[index]] = value
    expected = message.format(**{f"key{i}": key for i, key in enumerate(keys)})
    with pytest.raises(error, match=f"^{expected}"):
        bn.from_state(state, framework, prefix="a", **{EPS[framework]: 1e-3})


def test_a_variance_a_little_below_0(rng: np.random.Generator) -> None:
    """As in published weights, where eps makes up for it; whichever way they come in, all say the same."""
    x = rng.normal(size=(4, 2))
    var = np.array([-9.9998997e-06, 4])
    expected = x / np.sqrt(var + 1e-5)
    for framework, keys in KEYS.items():
        state = dict(zip(keys, [np.ones(2), np.zeros(2), np.zeros(2), var]))
        layer = bn.from_state(state, framework, prefix="a", axis=1, **{EPS[framework]: 1e-5}).eval()
        assert np.allclose(layer(x), expected, rtol=1e-9)
        again = bn.BatchNorm(2, dtype=np.float64)
        again.load_state_dict(layer.state_dict())
        assert np.array_equal(again.eval()(x), layer(x))
        for wrong in (-1.1e-5, -1.0, np.nan, np.inf):
            state[keys[3]] = np.array([1.0, wrong])
            with pytest.raises(ValueError, match=rf"{keys[3]} is {wrong:g} in channel 1"):
                bn.from_state(state, framework, prefix="a", axis=1, **{EPS[framework]: 1e-5})
            with pytest.raises(ValueError, match=rf"running_var is {wrong:g} in channel 1"):
                again.load_state_dict({**layer.state_dict(), "running_var": np.array([1.0, wrong])})


def test_a_variance_below_0_does_not_leave_eps_behind() -> None:
    """By Bessel's factor, which moves it away from 0."""
    state = {"gamma": [1.0], "beta": [0.0], "moving_mean": [0.0], "moving_variance": [-0.9e-5]}
    bn.from_state(state, "keras", epsilon=1e-5)
    with pytest.raises(ValueError, match=r"moving_variance is -1.35e-05 in channel 0, expected .* -eps \(-1e-05\)"):
        bn.from_state(state, "keras", epsilon=1e-5, unbiased=True, count=3)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (1, 3), (3, 1), (1, 1, 1, 3)])
def test_parameters_with_axes_of_one(rng: np.random.Generator, framework: str, shape: tuple[int, ...]) -> None:
    arrays = arrays_of(rng)
    layer = bn.from_state(state_of(framework, [array.reshape(shape) for array in arrays]), framework, prefix="a")
    for ours, given in zip(attributes(layer), arrays):
        assert np.array_equal(ours, given)
    one = bn.from_state(state_of(framework, [array[:1].reshape(1, 1, 1) for array in arrays]), framework, prefix="a")
    assert one.num_features == 1


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (7.5, ValueError, "a.num_batches_tracked is 7.5, expected a whole number"),
        (np.nan, ValueError, "a.num_batches_tracked is nan, expected a whole number"),
        (np.inf, ValueError, "a.num_batches_tracked is inf, expected a whole number"),
        (1e19, ValueError, r"a.num_batches_tracked is 1e\+19, expected at least 0 and"),
        ("5", TypeError, "a.num_batches_tracked has dtype <U1"),
        (True, TypeError, "a.num_batches_tracked has dtype bool"),
        (-1, ValueError, "a.num_batches_tracked is -1, expected at least 0"),
        (2**63, ValueError, "a.num_batches_tracked is 9223372036854775808, expected at least 0 and"),
        (np.zeros(2, int), ValueError, r"a.num_batches_tracked has shape \(2,\), expected \(\)"),
        (np.zeros(0, int), ValueError, r"a.num_batches_tracked has shape \(0,\), expected \(\)"),
    ],
)
def test_counts_that_would_not_do(rng: np.random.Generator, value: Any, error: type[Exception], message: str) -> None:
    state = {**state_of("pytorch", arrays_of(rng)), "a.num_batches_tracked": value}
    with pytest.raises(error, match=message):
        bn.from_state(state, "pytorch", prefix="a")


def test_zero_variance_and_odd_parameters_are_taken() -> None:
    state = {"gamma": [np.nan, 0.0], "beta": [np.inf, 0.0], "moving_mean": [0.0, 0.0], "moving_variance": [0.0, -0.0]}
    layer = bn.from_state(state, "keras")
    assert np.isnan(layer.gamma[0])
    assert layer.running_var.tolist() == [0, 0]


# Keys


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_layer_in_a_larger_state(rng: np.random.Generator, framework: str) -> None:
    """The name "a1" begins as "a" does, and what is not under the prefix does not matter."""
    arrays = arrays_of(rng)
    state = state_of(framework, arrays)
    others = {key.replace("a", "a1", 1) if framework != "flax" else key.replace("/a/", "/a1/"): 3 for key in state}
    layer = bn.from_state({**others, **state}, framework, prefix="a")
    assert np.array_equal(layer.running_mean, arrays[2])
    with pytest.raises(KeyError, match="is unexpected: a layer has .* prefix 'a1', 'a'"):
        bn.from_state({**others, **state}, framework)
    with pytest.raises(KeyError, match=r"c.* or .*c.* is missing \(layers are at prefix 'a'\)"):
        bn.from_state(state, framework, prefix="c")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_key_that_no_layer_has(rng: np.random.Generator, framework: str) -> None:
    state = state_of(framework, arrays_of(rng))
    key = KEYS[framework][0] + "_more"
    with pytest.raises(KeyError, match=f"^{key} is unexpected: a layer has "):
        bn.from_state({**state, key: np.ones(3)}, framework, prefix="a")


def test_a_collection_that_no_layer_has(rng: np.random.Generator) -> None:
    state = state_of("flax", arrays_of(rng))
    with pytest.raises(KeyError, match="cache/a/mean is unexpected"):
        bn.from_state({**state, "cache/a/mean": 0}, "flax", prefix="a")
    bn.from_state({**state, "cache/b/mean": 0}, "flax", prefix="a")
    # Without collections, it is what nnx has.
    merged = {key.rpartition("/")[2]: value for key, value in state.items()}
    with pytest.raises(KeyError, match="scale is unexpected: a layer has params/scale"):
        bn.from_state(merged, "flax")
    bn.from_state(merged, "nnx")


def test_many_layers_are_not_all_listed(rng: np.random.Generator) -> None:
    state = {f"bn{i}.running_mean": 0 for i in range(9)}
    with pytest.raises(KeyError, match=r"\(layers are at prefix 'bn0', 'bn1', 'bn2', 'bn3' and 5 more\)"):
        bn.from_state(state, "pytorch", prefix="bn")


def test_lists_of_layers(rng: np.random.Generator) -> None:
    """Their numbers are keys, too."""
    arrays = arrays_of(rng)
    state = {"layers": {0: dict(zip(("scale", "bias", "mean", "var"), arrays)), 1: {"kernel": 3}}}
    layer = bn.from_state(state, "nnx", prefix="layers/0")
    assert np.array_equal(layer.gamma, arrays[0])
    tuples = {("layers", 0, name): array for name, array in state["layers"][0].items()}
    assert np.array_equal(bn.from_state(tuples, "nnx", prefix="layers.0").beta, arrays[1])


def test_two_keys_that_are_one(rng: np.random.Generator) -> None:
    state = state_of("keras", arrays_of(rng))
    with pytest.raises(ValueError, match=r"a\.gamma and a/gamma are the same key"):
        bn.from_state({**state, "a.gamma": np.ones(3)}, "keras", prefix="a")


@pytest.mark.parametrize(
    ("state", "told", "error", "message"),
    [
        ([], {}, TypeError, "state is of type list, expected a mapping"),
        ({}, {}, KeyError, "weight or running_mean is missing"),
        ({b"weight": 1}, {}, TypeError, "the key b'weight' is of type bytes, expected a text"),
        ({("a", None): 1}, {}, TypeError, "the key None is of type NoneType, expected a text"),
        ({}, {"prefix": None}, TypeError, "prefix is of type NoneType, expected a text"),
        ({}, {"decay": 0.5}, TypeError, "decay is none of the settings that count of a pytorch layer: num_features"),
        ({}, {"epsilon": 0.5}, TypeError, "epsilon is none of the settings that count of a pytorch layer"),
        ({}, {"affine": 1}, TypeError, "affine is 1, expected True or False"),
        ({}, {"num_features": 2.0}, TypeError, "num_features is 2.0, expected an int"),
        ({}, {"num_features": 0}, ValueError, "num_features is 0"),
        ({"weight": [1.0]}, {"num_features": 2}, ValueError, r"weight has shape \(1,\), expected \(2,\), num_features"),
        ({"weight": [1.0]}, {"affine": False}, KeyError, "weight is unexpected, as affine is False"),
        ({"weight": [1.0]}, {"bias": True}, KeyError, "bias is missing, but bias is True"),
        ({"bias": [1.0]}, {}, KeyError, "weight is missing, but bias is there"),
        ({"num_batches_tracked": 1}, {}, KeyError, "running_mean is missing, but num_batches_tracked is there"),
        ({"weight": [1.0]}, {"eps": -1}, ValueError, "eps is -1.0, expected a finite number of at least 0"),
        ({"weight": [1.0]}, {"eps": np.nan}, ValueError, "eps is nan"),
        ({"weight": [1.0]}, {"eps": np.inf}, ValueError, "eps is inf, expected a finite number"),
        ({"weight": [1.0]}, {"eps": "1"}, TypeError, "eps is of type str"),
        ({"weight": [1.0]}, {"momentum": 1.5}, ValueError, "momentum is 1.5, expected a number from 0 to 1"),
        ({"weight": [1.0]}, {"momentum": "a"}, TypeError, "momentum is of type str"),
        ({"weight": [1.0]}, {"axis": 1.0}, TypeError, "axis is 1.0"),
        ({"weight": [1.0]}, {"axis": (1, 2)}, ValueError, r"weight has shape \(1,\), expected one .* axis \(1, 2\)"),
        ({"weight": [1.0]}, {"count": 1}, ValueError, "count is 1.0, expected a finite number above 1"),
        ({"weight": [1.0]}, {"count": "9"}, TypeError, "count is of type str"),
    ],
)
def test_calls_that_would_not_do(state: Any, told: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bn.from_state(state, "pytorch", **told)


@pytest.mark.parametrize("framework", ["torch", "", None, 3, "PyTorch"])
def test_unknown_frameworks(framework: Any) -> None:
    expected = "expected one of 'pytorch', 'keras', 'flax', 'nnx', 'onnx', 'mlx'"
    with pytest.raises(ValueError, match=f"framework is {framework!r}, {expected}"):
        bn.from_state({}, framework)
    with pytest.raises(ValueError, match=f"framework is {framework!r}, {expected}"):
        bn.to_state(bn.BatchNorm(2), framework)


# Momentum and the bias of the variance


def test_the_cumulative_average() -> None:
    layer = bn.BatchNorm(2, momentum=None)
    arrays, settings = bn.to_state(layer, "pytorch")
    assert settings["momentum"] is None
    assert bn.from_state(arrays, "pytorch", **settings).momentum is None
    for framework in FRAMEWORKS[1:]:
        layer = layer_for(framework, momentum=None)
        with pytest.raises(ValueError, match=f"momentum is None, .* which a {framework} layer does not have"):
            bn.to_state(layer, framework)
        with pytest.raises(TypeError, match="momentum is of type NoneType, expected a number"):
            bn.from_state(bn.to_state(layer_for(framework), framework).arrays, framework, momentum=None)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_bias_of_the_variance(rng: np.random.Generator, framework: str, unbiased: bool) -> None:
    """Converted where conventions differ and the count is known."""
    count = float(rng.integers(2, 50))
    state = state_of(framework, arrays_of(rng, dtype=np.float64))
    var = state[KEYS[framework][3]]
    theirs = DEFAULTS[framework][2]
    to_ours = {(True, False): (count - 1) / count, (False, True): count / (count - 1)}.get((theirs, unbiased), 1.0)
    layer = bn.from_state(state, framework, prefix="a", unbiased=unbiased, count=count)
    assert layer.unbiased is unbiased
    assert np.allclose(layer.running_var, var * to_ours, rtol=1e-14)
    assert np.array_equal(layer.running_mean, state[KEYS[framework][2]])
    back = bn.to_state(layer, framework, prefix="a", count=count).arrays[KEYS[framework][3]]
    assert np.allclose(back, var, rtol=1e-14)
    # Without the count it is carried over as it is.
    layer = bn.from_state(state, framework, prefix="a", unbiased=unbiased)
    assert np.array_equal(layer.running_var, var)
    assert np.array_equal(bn.to_state(layer, framework, prefix="a").arrays[KEYS[framework][3]], var)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_variance_beyond_its_dtype(dtype: Any) -> None:
    most = np.array([1, np.finfo(dtype).max], dtype)
    state = {"moving_mean": np.zeros(2, dtype), "moving_variance": most}
    layer = bn.from_state(state, "keras", axis=1)
    assert np.array_equal(layer.running_var, most)
    message = f"times 1.5, which makes it unbiased, is beyond {np.dtype(dtype)}"
    with pytest.raises(ValueError, match=f"moving_variance {message}"):
        bn.from_state(state, "keras", unbiased=True, count=3)
    with pytest.raises(ValueError, match=f"running_var {message}"):
        bn.to_state(layer, "pytorch", count=3)


# to_state()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", "relu"),
        ("activation", bn.LeakyReLU(0.1)),
        ("running", bn.Running("debiased")),
        ("source", bn.Renorm()),
        ("groups", bn.Ghost(2)),
        ("groups", bn.Segments([0], 2)),
        ("frozen", True),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_no_framework_can_say(framework: str, name: str, value: Any) -> None:
    layer = layer_for(framework, **{name: value})
    with pytest.raises(ValueError, match=f"^{name} is .*, which a {framework} layer does not have"):
        bn.to_state(layer, framework)


def test_what_is_as_good_as_nothing() -> None:
    layer = bn.BatchNorm(2, activation="identity", frozen=np.bool_(False))
    assert len(bn.to_state(layer, "keras").arrays) == 4


@pytest.mark.parametrize(
    ("framework", "told", "message"),
    [
        ("pytorch", {"axis": -1}, "axis is -1, expected 1, the axis of every pytorch layer"),
        ("onnx", {"axis": 2}, "axis is 2, expected 1, the axis of every onnx layer"),
        ("mlx", {"axis": 1}, "axis is 1, expected -1, the axis of every mlx layer"),
        ("mlx", {"axis": -1, "eps": 0}, "eps is 0, expected more than 0, as a mlx layer has"),
    ],
)
def test_what_one_framework_cannot_say(framework: str, told: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bn.to_state(bn.BatchNorm(2, **told), framework)


@pytest.mark.parametrize(
    ("framework", "missing", "message"),
    [
        ("pytorch", "gamma", "gamma is None, which pytorch has beside beta"),
        ("mlx", "gamma", "gamma is None, which mlx has beside beta"),
        ("mlx", "beta", "beta is None, which mlx has beside gamma"),
        ("pytorch", "running_var", "running_var is None, which pytorch has beside running_mean"),
        ("mlx", "running_mean", "running_mean is None, which mlx has beside running_var"),
        ("keras", "running_var", "running_var is None, which keras has in every layer"),
    ],
)
def test_arrays_that_have_to_be_there(framework: str, missing: str, message: str) -> None:
    layer = layer_for(framework)
    setattr(layer, missing, None)
    with pytest.raises(ValueError, match=message):
        bn.to_state(layer, framework)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("gamma", np.ones(2, "f4"), ValueError, r"gamma has shape \(2,\), expected \(3,\): one element per channel"),
        ("running_var", np.ones((2, 3), "f4"), ValueError, r"running_var has shape \(2, 3\)"),
        ("running_mean", np.ma.ones(3, "f4"), TypeError, "running_mean is a masked array"),
    ],
)
def test_arrays_that_no_call_has_looked_at(name: str, value: Any, error: type[Exception], message: str) -> None:
    layer = bn.BatchNorm(3)
    setattr(layer, name, value)
    with pytest.raises(error, match=message):
        bn.to_state(layer, "keras")


@pytest.mark.parametrize(
    ("layer", "told", "error", "message"),
    [
        (None, {}, TypeError, "layer is of type NoneType, expected BatchNorm"),
        (bn.BatchNorm(2), {"prefix": 3}, TypeError, "prefix is of type int, expected a text"),
        (bn.BatchNorm(2), {"count": np.inf}, ValueError, "count is inf, expected a finite number above 1"),
        (bn.LazyBatchNorm2d(), {}, RuntimeError, "gamma has no values yet"),
    ],
)
def test_calls_of_to_state_that_would_not_do(
    layer: Any, told: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bn.to_state(layer, "keras", **told)


def test_values_that_diverged_are_written_as_they_are() -> None:
    """A state is no place for a check of training."""
    layer = bn.BatchNorm(2)
    layer.running_var[...] = [np.nan, np.inf]
    assert np.array_equal(bn.to_state(layer, "keras", count=4).arrays["moving_variance"], [np.nan, np.inf], True)
