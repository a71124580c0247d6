# SPDX-License-Identifier: Apache-2.0
"""Frameworks that count, divide or name otherwise: from_state() and to_state() beside each one's own formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from states import arrays_of

import batchnorm as bn
from batchnorm.interop import conventions

Array = np.ndarray[Any, Any]


class Theirs(NamedTuple):
    """A framework's layer at "a": its arrays, what it computes of x (N, C, L), and its statistics after a batch."""

    state: dict[str, Any]
    settings: dict[str, Any]
    infer: Callable[[Array], Array]
    train: Callable[[Array], tuple[Array, Array]]


def spread(values: Array) -> Array:
    return np.asarray(values)[:, None]


def of_batch(x: Array, ddof: int) -> tuple[Array, Array]:
    return x.mean((0, 2)), x.var((0, 2), ddof=ddof)


def plain(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    return spread(gamma) * (x - spread(mean)) / np.sqrt(spread(var) + eps) + spread(beta)


def caffe(rng: np.random.Generator, gamma: Array, beta: Array, mean: Array, var: Array) -> Theirs:
    """batch_norm_layer.cpp: sums S <- f S + s, their weight w <- f w + 1, and S / w in the test phase."""
    f, weight = 0.95, 1 / (1 - 0.95)
    state = {"a/mean": mean * weight, "a/variance": var * weight, "a/scale_factor": [weight]}

    def infer(x: Array) -> Array:
        factor = 0 if state["a/scale_factor"][0] == 0 else 1 / state["a/scale_factor"][0]
        return plain(x, gamma, beta, state["a/mean"] * factor, state["a/variance"] * factor, 1e-3)

    def train(x: Array) -> tuple[Array, Array]:
        m, v = of_batch(x, 1)
        new = state["a/scale_factor"][0] * f + 1
        return (m + f * state["a/mean"]) / new, (v + f * state["a/variance"]) / new

    return Theirs(
        {**state, "a/scale": gamma, "a/bias": beta}, {"eps": 1e-3, "moving_average_fraction": f}, infer, train
    )


def darknet(rng: np.random.Generator, gamma: Array, beta: Array, mean: Array, var: Array) -> Theirs:
    """blas.c: (x - mean) / (sqrt(variance) + .000001f), of the variance over M - 1; a dead channel among them."""
    var[0] = 0

    def infer(x: Array) -> Array:
        return spread(gamma) * (x - spread(mean)) / (np.sqrt(spread(var)) + 1e-6) + spread(beta)

    def train(x: Array) -> tuple[Array, Array]:
        m, v = of_batch(x, 1)
        return 0.99 * mean + 0.01 * m, 0.99 * var + 0.01 * v

    state = {"a/scales": gamma, "a/biases": beta, "a/rolling_mean": mean, "a/rolling_variance": var}
    return Theirs(state, {}, infer, train)


def moved(old: float, ddof: int) -> Callable[..., Callable[[Array], tuple[Array, Array]]]:
    def of(mean: Array, var: Array) -> Callable[[Array], tuple[Array, Array]]:
        def train(x: Array) -> tuple[Array, Array]:
            m, v = of_batch(x, ddof)
            return old * mean + (1 - old) * m, old * var + (1 - old) * v

        return train

    return of


def usual(keys: list[str], right_eps: float, old: float, ddof: int, **settings: Any) -> Callable[..., Theirs]:
    def made(rng: np.random.Generator, *arrays: Array) -> Theirs:
        def infer(x: Array) -> Array:
            return plain(x, *arrays, right_eps)  # type: ignore[arg-type]

        return Theirs(dict(zip(keys, arrays)), settings, infer, moved(old, ddof)(*arrays[2:]))

    return made


def mxnet_fixed(rng: np.random.Generator, gamma: Array, beta: Array, mean: Array, var: Array) -> Theirs:
    """batch_norm-inl.h: w = fix_gamma ? 1 : weight, and momentum * old + (1 - momentum) * biased."""
    state = {"arg:a_gamma": gamma, "arg:a_beta": beta, "aux:a_moving_mean": mean, "aux:a_moving_var": var}

    def infer(x: Array) -> Array:
        return plain(x, np.ones_like(gamma), beta, mean, var, 1e-3)

    return Theirs(state, {"fix_gamma": True}, infer, moved(0.9, 0)(mean, var))


def cudnn_saved(rng: np.random.Generator, gamma: Array, beta: Array, mean: Array, var: Array) -> Theirs:
    """resultSaveInvVariance is 1 / sqrt(eps + var); cudnnBatchNormalizationBackward takes it as it is."""
    invstd = 1 / np.sqrt(1e-5 + var)
    keys = "a/bnScale", "a/bnBias", "a/resultSaveMean", "a/resultSaveInvVariance"
    state = dict(zip(keys, (gamma, beta, mean, invstd)))

    def infer(x: Array) -> Array:
        return spread(gamma) * (x - spread(mean)) * spread(invstd) + spread(beta)

    return Theirs(state, {"exponentialAverageFactor": 0.25}, infer, moved(0.75, 0)(mean, var))


CUDNN = ["a/bnScale", "a/bnBias", "a/resultRunningMean", "a/resultRunningVariance"]
GLUON = ["a_gamma", "a_beta", "a_running_mean", "a_running_var"]
TF1 = ["a/gamma:0", "a/beta:0", "a/moving_mean:0", "a/moving_variance:0"]
JULIA = ["a.\u03b3", "a.\u03b2", "a.\u03bc", "a.\u03c3\u00b2"]
FRAMEWORKS: dict[str, tuple[str, Callable[..., Theirs]]] = {
    "caffe": ("caffe", caffe),
    "darknet": ("darknet", darknet),
    # AlexeyAB's fork: sqrt(variance + .00001f).
    "darknet, a fork": (
        "darknet",
        usual(
            ["a/scales", "a/biases", "a/rolling_mean", "a/rolling_variance"],
            1e-5,
            0.99,
            1,
            eps_under_root=True,
            eps=1e-5,
        ),
    ),
    # spatial_batch_norm_op.h: alpha = scale * rsqrt(var + eps); riv is the variance, whatever it is called.
    "caffe2": ("caffe2", usual(["a_s", "a_b", "a_rm", "a_riv"], 1e-5, 0.9, 1)),
    "cudnn": ("cudnn", usual(CUDNN, 1e-4, 0.9, 1, epsilon=1e-4, exponentialAverageFactor=0.1)),
    "cudnn_saved": ("cudnn_saved", cudnn_saved),
    "mxnet": ("mxnet", usual(["a_gamma", "a_beta", "a_moving_mean", "a_moving_var"], 1e-3, 0.9, 0, fix_gamma=False)),
    "mxnet, fixed": ("mxnet", mxnet_fixed),
    "gluon": ("gluon", usual(GLUON, 1e-5, 0.9, 0)),
    # tf.layers.batch_normalization, fused; and tf.contrib's word for momentum.
    "tensorflow": ("tensorflow", usual(TF1, 1e-3, 0.99, 1)),
    "tensorflow, contrib": ("tensorflow", usual(TF1, 1e-3, 0.999, 1, decay=0.999)),
    # layers.h: eps 1e-4, and an averaging factor of 1 / num_updates, which ends at the window's length.
    "dlib": ("dlib", usual(["a/gamma", "a/beta", "a/running_means", "a/running_variances"], 1e-4, 0.99, 1)),
    # normalise.jl: res_mtm .* old .+ mtm .* (m / (m - 1)) .* new.
    "flux": ("flux", usual(JULIA, 1e-5, 0.9, 1)),
    "lux": ("lux", usual(["a.scale", "a.bias", "a.running_mean", "a.running_var"], 1e-5, 0.9, 1)),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_inference_and_a_step_of_training(rng: np.random.Generator, name: str) -> None:
    framework, made = FRAMEWORKS[name]
    theirs = made(rng, *arrays_of(rng, 4, float))
    x = rng.normal(size=(5, 4, 3)) * 2 + 1
    layer = bn.from_state(theirs.state, framework, prefix="a", axis=1, **theirs.settings)
    expected = theirs.infer(x)
    assert np.allclose(layer.eval()(x), expected, rtol=1e-11, atol=1e-11 * abs(expected).max())
    mean, var = theirs.train(x)
    layer.train()(x)
    assert np.allclose(layer.running_mean, mean, rtol=1e-12)
    # A layer from Darknet keeps (sqrt(v) + eps)**2 - eps**2, which is v but for eps.
    assert np.allclose(layer.running_var, var, rtol=3e-6 if name == "darknet" else 1e-11, atol=0)


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back(rng: np.random.Generator, name: str, dtype: Any) -> None:
    """The layer that comes back does the same; and float32 loses no more than roundings."""
    framework, made = FRAMEWORKS[name]
    theirs = made(rng, *arrays_of(rng, 4, float))
    x = rng.normal(size=(5, 4, 3)).astype(dtype)
    state = {key: np.asarray(value, dtype) for key, value in theirs.state.items()}
    layer = bn.from_state(state, framework, prefix="a", axis=1, **theirs.settings).eval()
    assert layer.dtype == layer.param_dtype == dtype
    # The rounding of what is given, of mean (sums of twice the size), of var in the root, and of y.
    bound = 20 * float(np.finfo(dtype).eps) * (abs(theirs.infer(x.astype(float))).max() + 3)
    scale = 1e6 if "darknet" in name and "fork" not in name else 1.0  # the dead channel's
    assert abs(layer(x) - theirs.infer(x.astype(float))).max() <= bound * scale
    arrays, settings = bn.to_state(layer, framework, prefix="a")
    axis = settings.pop("axis", 1)
    again = bn.from_state(arrays, framework, prefix="a", axis=axis, **settings).eval()
    assert np.allclose(again(x), layer(x), rtol=bound, atol=bound)
    assert again.momentum == pytest.approx(layer.momentum, rel=1e-9)
    assert set(arrays) <= {key.partition(":")[2] if key[3:4] == ":" else key.removesuffix(":0") for key in state} | {
        "a_gamma"
    }


@pytest.mark.parametrize(
    ("framework", "eps", "momentum", "unbiased", "axis"),
    [
        ("caffe", 1e-5, 0.001, True, 1),  # the defaults of caffe.proto
        ("caffe2", 1e-5, 0.1, True, 1),
        ("cudnn", 1e-5, 0.1, True, 1),  # CUDNN_BN_MIN_EPSILON
        ("cudnn_saved", 1e-5, 0.1, False, 1),
        ("darknet", 1e-12, 0.01, True, 1),  # the square of its own
        ("mxnet", 1e-3, 0.1, False, 1),
        ("gluon", 1e-5, 0.1, False, 1),
        ("tensorflow", 1e-3, 0.01, True, -1),
        ("dlib", 1e-4, 0.01, True, 1),
        ("flux", 1e-5, 0.1, True, 1),
        ("lux", 1e-5, 0.1, True, 1),
    ],
)
def test_defaults(
    rng: np.random.Generator, framework: str, eps: float, momentum: float, unbiased: bool, axis: int
) -> None:
    made = next(made for name, made in FRAMEWORKS.values() if name == framework)
    state = made(rng, *arrays_of(rng, 4, float)).state
    told = {"fix_gamma": False} if framework == "mxnet" else {}
    layer = bn.from_state(state, framework, prefix="a", **told)
    assert layer.eps == pytest.approx(eps, rel=1e-15)
    assert layer.momentum == pytest.approx(momentum, rel=1e-12)
    assert (layer.unbiased, layer.axis) == (unbiased, axis)


def test_names_of_micro_and_mu() -> None:
    state = {"\u03b3": [1.0], "\u03b2": [0.0], "\u00b5": [2.0], "\u03c3\u00b2": [1.0], "chs": 1, "active": None}
    assert bn.from_state(state, "flux").running_mean.tolist() == [2]
    with pytest.raises(KeyError, match="momentum is unexpected"):
        bn.from_state({**state, "momentum": 0.5}, "flux")  # it would be lost


def test_the_states_of_lux_say_whether_it_trains() -> None:
    state = {"scale": [1.0], "bias": [0.0], "running_mean": [2.0], "running_var": [1.0], "training": object()}
    assert bn.from_state(state, "lux").running_mean.tolist() == [2]


def test_caffe_divides_sums(rng: np.random.Generator) -> None:
    state: dict[str, Any] = {"mean": [6.0], "variance": [12.0], "scale_factor": np.float32([3])}
    layer = bn.from_state(state, "caffe")
    assert (layer.running_mean, layer.running_var, layer.eps) == (2, 4, 1e-5)
    assert layer.gamma is layer.beta is None
    assert layer.momentum == pytest.approx(0.001)
    seen_nothing = bn.from_state({**state, "scale_factor": 0.0}, "caffe")
    assert (seen_nothing.running_mean, seen_nothing.running_var) == (0, 0)
    # Published files have sums that are a little below 0.
    below = bn.from_state({**state, "variance": np.array([-2.9e-5])}, "caffe")
    assert -1e-5 < below.running_var[0] < 0
    for change, message in (
        ({"variance": [-3.1e-5]}, r"^variance is -1.03333e-05 in channel 0, expected .* at least -eps"),
        ({"scale_factor": [-1.0]}, "^scale_factor is -1, expected a finite number of at least 0"),
        ({"scale_factor": [np.nan]}, "^scale_factor is nan"),
        ({"scale_factor": [1.0, 2.0]}, r"^scale_factor is float64 of shape \(2,\), expected one number"),
        ({"scale_factor": "3"}, "^scale_factor is <U1 of shape"),
        ({"scale_factor": 1e-320, "mean": [1.0]}, "^mean divided by scale_factor, 9.99989e-321, is beyond float64"),
    ):
        with pytest.raises(ValueError, match=message):
            bn.from_state({**state, **change}, "caffe")
    del state["scale_factor"]
    with pytest.raises(KeyError, match="scale_factor is missing"):
        bn.from_state(state, "caffe")
    for momentum in (0, None):
        with pytest.raises(ValueError, match=f"^momentum is {momentum}"):
            bn.to_state(bn.BatchNorm(2, momentum=momentum), "caffe")


def test_training_goes_on_in_caffe_as_here(rng: np.random.Generator) -> None:
    """With the weight that many batches have, 1 / momentum."""
    layer = bn.BatchNorm(3, momentum=0.25, dtype=np.float64)
    layer.running_mean[...] = rng.normal(size=3)
    arrays, settings = bn.to_state(layer, "caffe")
    x = rng.normal(size=(5, 3))
    layer(x)
    f = settings["moving_average_fraction"]
    weight = arrays["scale_factor"][0] * f + 1
    assert np.allclose((arrays["mean"] * f + x.mean(0)) / weight, layer.running_mean, rtol=1e-14)
    assert np.allclose((arrays["variance"] * f + x.var(0, ddof=1)) / weight, layer.running_var, rtol=1e-14)


def test_eps_outside_the_root(rng: np.random.Generator) -> None:
    """Every variance is converted: dead channels have 1 / eps, and large variances lose nothing."""
    var = np.float32([0, 1e-30, 1e-13, 1e-12, 1e-6, 1, 1e30])
    state = {"scales": np.ones_like(var), "biases": var * 0, "rolling_mean": var * 0, "rolling_variance": var}
    for eps in (1e-6, 0.0, 0.5):
        scale, _ = bn.ScaleShift.of(bn.from_state(state, "darknet", eps=eps))
        with np.errstate(divide="ignore"):
            expected = 1 / (np.sqrt(var.astype(float)) + eps)
        expected[np.isinf(expected)] = 0  # as everywhere here, a root of 0 gives beta
        assert np.allclose(scale, expected, rtol=2e-7, atol=0)
    small = np.float16([6e-8])
    state_16 = {key: np.zeros(1, np.float16) for key in state}
    halves = bn.from_state({**state_16, "scales": np.ones(1, np.float16), "rolling_variance": small}, "darknet")
    assert halves.param_dtype == np.float32
    assert np.allclose(bn.ScaleShift.of(halves).scale, 1 / (np.sqrt(small.astype(float)) + 1e-6), rtol=1e-6)
    with pytest.raises(
        ValueError, match="^rolling_variance is -1e-07 in channel 0, expected finite numbers of at least 0"
    ):
        bn.from_state({**state, "rolling_variance": np.float32([-1e-7] * 7)}, "darknet")
    below = bn.from_state({**state, "rolling_variance": np.float32([-1e-7] * 7)}, "darknet", eps_under_root=True)
    assert (below.running_var < 0).all()
    with pytest.raises(ValueError, match=r"^running_var is 0 in channel 0, expected finite numbers of at least 1e-12"):
        bn.to_state(with_zero_variance(eps=0), "darknet")


def with_zero_variance(eps: float) -> bn.BatchNorm:
    layer = bn.BatchNorm(2, eps=eps)
    layer.running_var[...] = 0
    return layer


def test_inverses(rng: np.random.Generator) -> None:
    keys = "resultSaveMean", "resultSaveInvVariance"
    var = np.array([0, 1e-9, 1e-5, 1, 1e9])
    invstd = (1 / np.sqrt(var + 1e-5)).astype(np.float32)
    state = {"bnScale": np.ones(5, "f4"), "bnBias": np.zeros(5, "f4"), keys[0]: np.zeros(5, "f4"), keys[1]: invstd}
    layer = bn.from_state(state, "cudnn_saved")
    assert np.allclose(bn.ScaleShift.of(layer).scale, invstd, rtol=2e-7, atol=0)
    assert np.allclose(bn.to_state(layer, "cudnn_saved").arrays[keys[1]], invstd, rtol=2e-7, atol=0)
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^{keys[1]} is {wrong:g} in channel 2, expected finite numbers above 0"):
            bn.from_state({**state, keys[1]: np.where(np.arange(5) == 2, wrong, invstd)}, "cudnn_saved")
    with pytest.raises(ValueError, match=rf"^{keys[1]} makes a variance of 1e-50 at channel 0, beyond float32"):
        bn.from_state({**state, keys[1]: np.full(5, 1e25, "f4")}, "cudnn_saved", epsilon=0)
    with pytest.raises(ValueError, match=r"^running_var is 0 in channel 0, expected finite numbers above -eps \(0\)"):
        bn.to_state(with_zero_variance(eps=0), "cudnn_saved")
    unbiased = bn.from_state(state, "cudnn_saved", unbiased=True, count=5)
    assert np.allclose(unbiased.running_var[3:], var[3:] * 5 / 4, rtol=1e-6)


def test_a_gamma_that_may_be_fixed(rng: np.random.Generator) -> None:
    state = {"bn_gamma": [2.0, 1.0], "bn_beta": [0.0, 3.0], "bn_moving_mean": [0.0, 0.0], "bn_moving_var": [1.0, 1.0]}
    told = "^bn_gamma is not 1 in every channel, but counts as 1 where fix_gamma is True, which is the default: tell"
    with pytest.raises(ValueError, match=told):
        bn.from_state(state, "mxnet", prefix="bn")
    assert bn.from_state(state, "mxnet", prefix="bn", fix_gamma=False).gamma.tolist() == [2, 1]
    assert bn.from_state(state, "mxnet", prefix="bn", fix_gamma=True).gamma is None
    ones = bn.from_state({**state, "bn_gamma": [1.0, 1.0]}, "mxnet", prefix="bn")
    assert ones.gamma is None
    assert ones.beta.tolist() == [0, 3]
    assert bn.to_state(ones, "mxnet", prefix="bn").settings["fix_gamma"] is True
    assert bn.to_state(ones, "mxnet", prefix="bn").arrays["bn_gamma"].tolist() == [1, 1]
    gluon = {"aux:" + key.replace("moving", "running"): value for key, value in state.items()}
    assert bn.from_state(gluon, "gluon", prefix="bn").gamma.tolist() == [2, 1]
    assert bn.from_state(gluon, "gluon", prefix="bn", scale=False).gamma is None
    with pytest.raises(TypeError, match="^fix_gamma is 1, expected True or False|^fix_gamma is of type int"):
        bn.from_state(state, "mxnet", prefix="bn", fix_gamma=1)


def test_names_that_are_joined(rng: np.random.Generator) -> None:
    arrays = arrays_of(rng, 4, float)
    names = "gamma", "beta", "running_mean", "running_var"
    both: dict[str, Any] = {f"features.0.{name}": array for name, array in zip(names, arrays)}
    both.update({f"net_bn0_{name}": array + 1 for name, array in zip(names, arrays)})
    both.update({f"net_bn0_1_{name}": array + 2 for name, array in zip(names, arrays)})
    assert np.array_equal(bn.from_state(both, "gluon", prefix="features.0").beta, arrays[1])
    assert np.array_equal(bn.from_state(both, "gluon", prefix="net_bn0").beta, arrays[1] + 1)
    assert np.array_equal(bn.from_state(both, "gluon", prefix="net_bn0_1_").beta, arrays[1] + 2)
    with pytest.raises(KeyError, match=r"is missing \(layers are at prefix 'features_0', 'net_bn0', 'net_bn0_1'\)"):
        bn.from_state(both, "gluon", prefix="net")
    with pytest.raises(ValueError, match=r"a_gamma and a\.gamma are the same key|a\.gamma and a_gamma are the same"):
        bn.from_state({"a_gamma": [1.0], "a.gamma": [1.0]}, "gluon", prefix="a")


@pytest.mark.parametrize(
    ("framework", "told", "error", "message"),
    [
        ("tensorflow", {"momentum": 0.9, "decay": 0.9}, TypeError, "momentum and decay are two words for one setting"),
        ("tensorflow", {"decay": 1.5}, ValueError, "decay is 1.5, expected a number from 0 to 1"),
        ("caffe", {"momentum": 0.9}, TypeError, "momentum is none of the settings .* moving_average_fraction, eps"),
        ("dlib", {"running_stats_window_size": 0.5}, ValueError, "running_stats_window_size is 0.5, expected a number"),
        ("dlib", {"running_stats_window_size": None}, TypeError, "running_stats_window_size is of type NoneType"),
        ("darknet", {"eps_under_root": "yes"}, TypeError, "eps_under_root is 'yes'"),
        ("cafe", {}, ValueError, "framework is 'cafe', expected one of 'pytorch', 'keras'.*'lux'"),
    ],
)
def test_settings_that_would_not_do(framework: str, told: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        bn.from_state({}, framework, **told)


def test_a_window_of_batches() -> None:
    layer = bn.BatchNorm(2, momentum=1 / 30)
    arrays, settings = bn.to_state(layer, "dlib")
    assert settings == {"running_stats_window_size": 30, "eps": 1e-5}
    assert bn.from_state(arrays, "dlib", running_stats_window_size=30).momentum == 1 / 30
    for momentum in (0.3, 0):
        with pytest.raises(ValueError, match=rf"^momentum is {momentum}, expected 1 / n: dlib has a window of n"):
            bn.to_state(bn.BatchNorm(2, momentum=momentum), "dlib")


def test_the_type_has_the_names_of_the_table() -> None:
    assert get_args(conventions.Framework) == tuple(each.framework for each in conventions.CONVENTIONS)
