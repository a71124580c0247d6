# SPDX-License-Identifier: Apache-2.0
"""from_state() and to_state(): keys, defaults and what settings mean. The frameworks themselves are peers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from states import BFLOAT16, DEFAULTS, EPS, FRAMEWORKS, KEYS, arrays_of, attributes, layer_for, state_of

import batchnorm as bn

Array = np.ndarray[Any, Any]
IS_DECAY = {"pytorch": False, "mlx": False, "keras": True, "flax": True, "nnx": True, "onnx": True}


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


def test_settings() -> None:
    """The settings are those that each framework's constructor takes, written out."""
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


# The settings by which each framework says that gamma and beta are there, or not.
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
    # Without the count the variance is carried over as it is.
    layer = bn.from_state(state, framework, prefix="a", unbiased=unbiased)
    assert np.array_equal(layer.running_var, var)
    assert np.array_equal(bn.to_state(layer, framework, prefix="a").arrays[KEYS[framework][3]], var)


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
