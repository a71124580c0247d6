# SPDX-License-Identifier: Apache-2.0
"""States as mappings: load_state_dict() of all kinds of layers, and from_state() of all frameworks.

A file of these has the seed that a state is drawn from, and at its start how many things are wrong with it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from judge import FaultError, expect, refuses
from mutations import NUMBERS, SIZES

NAME, SUFFIX, PACKAGES = "states", ".state", ()
DRAWN = True
_REFUSALS = ValueError, TypeError, KeyError
_CHANNELS = 3

# Frameworks' names for gamma, beta, mean and variance; the default eps; and where eps stands.
_FRAMEWORKS: dict[str, tuple[tuple[str, ...], float, str]] = {
    "pytorch": (("weight", "bias", "running_mean", "running_var"), 1e-5, "within"),
    "keras": (("gamma", "beta", "moving_mean", "moving_variance"), 1e-3, "within"),
    "tensorflow": (("gamma", "beta", "moving_mean", "moving_variance"), 1e-3, "within"),
    "flax": (("params/scale", "params/bias", "batch_stats/mean", "batch_stats/var"), 1e-5, "within"),
    "nnx": (("scale", "bias", "mean", "var"), 1e-5, "within"),
    "onnx": (("scale", "B", "input_mean", "input_var"), 1e-5, "within"),
    "mlx": (("weight", "bias", "running_mean", "running_var"), 1e-5, "within"),
    "caffe2": (("s", "b", "rm", "riv"), 1e-5, "within"),
    "cudnn": (("bnScale", "bnBias", "resultRunningMean", "resultRunningVariance"), 1e-5, "within"),
    "cudnn_saved": (("bnScale", "bnBias", "resultSaveMean", "resultSaveInvVariance"), 1e-5, "inverse"),
    "darknet": (("scales", "biases", "rolling_mean", "rolling_variance"), 1e-6, "outside"),
    "gluon": (("gamma", "beta", "running_mean", "running_var"), 1e-5, "within"),
    "dlib": (("gamma", "beta", "running_means", "running_variances"), 1e-4, "within"),
    "flux": (("γ", "β", "μ", "σ²"), 1e-5, "within"),
    "lux": (("scale", "bias", "running_mean", "running_var"), 1e-5, "within"),
}


class _Unwilling:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no values yet")


def seeds(folder: Path) -> list[bytes]:
    return [f"0 {index}".encode() for index in range(30)]


def mutated(rng: random.Random, data: bytes) -> bytes:
    return f"{rng.choice([1, 1, 1, 2])} {rng.randrange(2**32)}".encode()


def _strange(rng: random.Random, array: Any) -> Any:
    """Something in the place of an array."""
    dtypes = ["f8", "f2", ">f4", "i8", "u1", "?", "c8", "O", "U4", "M8[s]", "V2", "V3", "f4,f4", np.longdouble]
    with np.errstate(all="ignore"):
        choices: list[Any] = [None, "x", b"x", {}, [], 1.0, {"a": array}, [[1.0], [2.0, 3.0]], _Unwilling(), object()]
        choices += [array.tolist(), np.ma.masked_array(array), np.broadcast_to(array, (2, *array.shape))]
        choices += [array.reshape(1, -1, 1, 1), array[None, :1], array[:0], np.array(rng.choice(NUMBERS)), array[::-1]]
        dtype = rng.choice(dtypes)
        choices += [np.zeros(array.shape, dtype), np.resize(array, rng.choice([1, 2, 4]))]
        if array.dtype.kind not in "mM":
            choices.append(memoryview(array.copy()))
        bad = array.copy()
        if bad.size and bad.dtype.kind == "f":
            bad.reshape(-1)[rng.randrange(bad.size)] = rng.choice(NUMBERS)
        return rng.choice([*choices, bad, bad, bad])


def _spoiled(rng: random.Random, state: dict[Any, Any], times: int) -> str:
    """Changes so many entries; gives the key, if a value is all that is another."""
    named = ""
    for _ in range(times):
        key = rng.choice(sorted(state, key=str)) if state else "x"
        change = rng.randrange(10)
        named = key if change < 6 and times == 1 and state else ""
        if change < 6 and state:
            array = state[key] if isinstance(state[key], np.ndarray) else np.ones(_CHANNELS, "f4")
            state[key] = rng.choice([*SIZES, *NUMBERS]) if array.ndim == 0 else _strange(rng, array)
        elif change == 6:
            state.pop(key, None)
        elif change == 7:
            others = ["more", "", 3, ("a", 1), None, 1.5, "a.b", f"{key}/x", f"{key}:0", "Adam"]
            state[rng.choice(others)] = np.ones(3, "f4")
        elif change == 8:
            state[key.upper() if isinstance(key, str) else key] = state.pop(key, 1.0)
        else:
            state[key] = state  # without end
    return named


def _snapshot(layer: Any) -> list[tuple[str, Any, Any]]:
    """All attributes: which object each is, and what is in it."""
    found = []
    for name, value in sorted(vars(layer).items()):
        content = value.tobytes() if isinstance(value, np.ndarray) else repr(value)
        found.append((name, id(value) if isinstance(value, np.ndarray) else None, content))
    return found


def check(path: Path) -> bool:
    """Returns True if a state loads."""
    wrong, seed = path.read_bytes().split()
    rng = random.Random(seed)
    return (_loads if rng.random() < 0.5 else _becomes)(rng, int(wrong), path)


def _made(rng: random.Random, numbers: np.random.Generator) -> Any:
    """A layer of some kind, and a state for it."""
    told: dict[str, Any] = {"dtype": rng.choice(["f4", "f8", "f2"]), "affine": rng.random() < 0.8}
    kind = rng.choice([bn.BatchNorm, bn.BatchNorm1d, bn.BatchNorm2d, bn.LazyBatchNorm1d, bn.FrozenBatchNorm2d])
    if kind is bn.LazyBatchNorm1d:
        return kind(**told), bn.BatchNorm1d(_CHANNELS, **told)
    if kind is bn.FrozenBatchNorm2d:
        return kind(_CHANNELS), kind(_CHANNELS)
    if rng.random() < 0.2:
        told["groups"] = bn.Segments([0, 1], 2)
    return kind(_CHANNELS, **told), kind(_CHANNELS, **told)


def _loads(rng: random.Random, wrong: int, path: Path) -> bool:
    """load_state_dict(): all of a state, or nothing."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    layer, other = _made(rng, numbers)
    state: dict[Any, Any] = {
        key: numbers.uniform(0.5, 2, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array + 5
        for key, array in other.state_dict().items()
    }
    named = _spoiled(rng, state, wrong)
    strict = rng.random() < 0.7
    kind, before = type(layer), _snapshot(layer)
    # The first array tells a lazy layer what the others have to be.
    named = "" if kind is bn.LazyBatchNorm1d else named
    refused, error = refuses(lambda: layer.load_state_dict(state, strict), path, _REFUSALS, names=str(named))
    if refused:
        expect(wrong > 0, f"a state that is right is refused: {error}")
        expect(type(layer) is kind and _snapshot(layer) == before, "a layer has changed, and the state was refused")
        return False
    for key, array in (layer.state_dict() if type(layer) is not bn.LazyBatchNorm1d else {}).items():
        if key in state:
            given = np.asarray(state[key]).reshape(array.shape)
            expect(bool(np.array_equal(array, given, equal_nan=True)), f"{key} is {array}, expected {given}")
    return True


def _becomes(rng: random.Random, wrong: int, path: Path) -> bool:
    """from_state(): a layer that computes what the framework's would."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    framework = rng.choice(sorted(_FRAMEWORKS))
    keys, eps, where = _FRAMEWORKS[framework]
    arrays = [numbers.uniform(0.5, 2, _CHANNELS).astype(rng.choice(["f4", "f4", "f8"])) for _ in keys]
    state: dict[Any, Any] = dict(zip(keys, arrays))
    settings: dict[str, Any] = {}
    named = _spoiled(rng, state, wrong)
    if wrong and rng.random() < 0.3:
        settings[rng.choice(["eps", "epsilon", "momentum", "axis", "dtype", "count", "prefix", "affine"])] = rng.choice(
            [*NUMBERS, *SIZES[:4], None, "x", (), (1, 2), "f2", "f8", True]
        )
        named = ""
    told: Any = framework
    named = named.rpartition("/")[2]
    refused, found = refuses(lambda: bn.from_state(state, told, **settings), path, _REFUSALS, names=named)
    if refused:
        expect(wrong > 0, f"a state that is right is refused: {found}")
        return False
    # Its own tests are about what from_state() makes of other arrays than these, and of settings.
    plain = [each for each in map(state.get, keys) if isinstance(each, np.ndarray) and each.dtype.kind == "f"]
    if settings or len(plain) < len(keys) or any(each.ndim != 1 for each in plain):
        return True
    x = numbers.normal(size=(5, _CHANNELS)).astype(found.dtype)
    gamma, beta, mean, variance = (np.asarray(state[key], np.float64) for key in keys)
    with np.errstate(all="ignore"):
        factor = {"within": 1 / np.sqrt(variance + eps), "outside": 1 / (np.sqrt(variance) + eps), "inverse": variance}
        expected = (x.astype(np.float64) - mean) * factor[where] * gamma + beta
        y = found.eval()(x)
        near = 1e-3 if found.dtype == np.float16 else 1e-5
        size = np.abs(expected) + np.abs(beta) + np.abs(gamma * mean * factor[where]) + 1
        error = np.abs(y - expected) <= near * size
    if np.isfinite(expected).all() and np.abs(expected).max() < 1e30 and not error.all():
        raise FaultError(f"{framework}: y is {y}, expected {expected}")
    return True
