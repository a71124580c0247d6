# SPDX-License-Identifier: Apache-2.0
"""Pickles name public classes alone, and have a version, of which a newer one is refused; what comes back works."""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

import numpy as np
import pytest

import batchnorm as bn
from batchnorm._core import pickling

X = np.random.default_rng(20261208).normal(size=(4, 3, 5)).astype("f4")
STATISTICS: dict[str, Any] = {"running_mean": np.zeros(3, "f4"), "running_var": np.ones(3, "f4")}


def layer(kind: Any = bn.BatchNorm1d, **settings: Any) -> Any:
    made = kind(3, **settings)
    made(X if kind is bn.BatchNorm1d else X[..., np.newaxis])
    return made


def moments() -> bn.Moments:
    return bn.moments(X)


def micro_batches() -> bn.MicroBatches:
    batch = bn.MicroBatches()
    batch.add(X)
    batch.normalize(X, np.ones(3, "f4"))
    batch.add_gradient(X, X)
    return batch


def of_keras() -> Any:
    made = bn.interop.keras.BatchNormalization(axis=1)
    made(X, training=True)
    return made


def saved(**told: Any) -> bn.SavedStatistics:
    return bn.forward_training(X, np.float32([1, 2, 3]), [0, 1, 2], **told)[1]


THINGS: dict[str, Any] = {
    "BatchNorm": lambda: bn.BatchNorm((3, 5), axis=(1, 2), momentum=None, dtype=np.float64),
    "BatchNorm1d": layer,
    "BatchNorm2d": lambda: layer(bn.BatchNorm2d),
    "BatchNorm3d": lambda: bn.BatchNorm3d(3, affine=False),
    "FrozenBatchNorm2d": lambda: layer(bn.FrozenBatchNorm2d),
    "without statistics": lambda: layer(track_running_stats=False),
    "with settings": lambda: layer(
        activation=bn.Clip(-1, 1), running=bn.Running("debiased"), groups=bn.Segments([0, 0, 1, 1], 2), dtype="f4"
    ),
    "with a source": lambda: bn.BatchNorm1d(3, source=bn.Renorm(3, 5), activation="relu", frozen=False),
    "LazyBatchNorm1d": lambda: bn.LazyBatchNorm1d(eps=1e-3, activation="silu"),
    "LazyBatchNorm2d": bn.LazyBatchNorm2d,
    "LazyBatchNorm3d": bn.LazyBatchNorm3d,
    "Moments": moments,
    "Moments of nothing": bn.Moments,
    "MicroBatches": micro_batches,
    "SavedStatistics": saved,
    "SavedStatistics of a call": lambda: saved(
        activation="relu", residual=X, weights=np.ones((4, 5)), masked="zero", groups=bn.Ghost(2), **STATISTICS
    ),
    "SavedStatistics with bits": lambda: saved(activation=bn.LeakyReLU(), save_mask=True),
    "SavedStatistics of a policy": lambda: saved(
        running=bn.Running("cumulative", pure=True, num_batches=0), source=bn.Updated(), **STATISTICS
    ),
    "frozen_statistics": lambda: bn.frozen_statistics(np.zeros(3), np.ones(3), activation="silu", groups=None),
    "Running": lambda: bn.Running("windowed", "beta", "skip"),
    "Blend": lambda: bn.Blend(3),
    "Renorm": bn.Renorm,
    "Updated": bn.Updated,
    "Ghost": lambda: bn.Ghost(2, interleaved=True),
    "Segments": lambda: bn.Segments([0, 1], 2),
    "Split": lambda: bn.Split(2),
    "Conditional": lambda: bn.Conditional([0, 1], 2),
    "LeakyReLU": bn.LeakyReLU,
    "Clip": lambda: bn.Clip(0, 1),
    "ScaleShift": lambda: bn.ScaleShift.of(layer()),
    "Sums": lambda: bn.backward_reduce(X, X, np.zeros(3), np.ones(3)),
    "Folded": lambda: bn.fold_linear(np.ones((3, 2)), None, bn.BatchNorm(3)),
    "FrameworkState": lambda: bn.to_state(layer(), "pytorch"),
    "Outcome": lambda: bn.Outcome.USED,
    "StateError": lambda: bn.StateError("bias is missing"),
    "keras.BatchNormalization": of_keras,
}


def names_in(data: bytes) -> set[str]:
    """module.name of everything that a pickle imports."""
    texts: list[str] = []
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
    return found


@pytest.mark.parametrize("protocol", [2, 4, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("name", THINGS)
def test_only_public_names(name: str, protocol: int) -> None:
    data = pickle.dumps(THINGS[name](), protocol)
    ours = {name for name in names_in(data) if name.startswith("batchnorm")}
    assert ours
    for found in ours:
        module, _, kind = found.rpartition(".")
        assert module in ("batchnorm", "batchnorm.interop.keras"), found
        assert kind[0] != "_"
        assert hasattr(bn if module == "batchnorm" else bn.interop.keras, kind)
    assert b"batchnorm._" not in data
    assert not [text for text in names_in(data) if "._" in text and not text.startswith(("numpy", "copyreg._recons"))]


def sent(thing: Any) -> Any:
    """A copy whose arrays lie in a message, at odd addresses, as between the workers of Dask."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    messages = [bytearray(1) + bytearray(each.raw()) for each in buffers]
    return pickle.loads(data, buffers=[memoryview(each)[1:] for each in messages])


def test_arrays_that_came_in_a_message() -> None:
    """A copy computes, and in place, too."""
    assert not sent(np.zeros(2)).flags.aligned
    count, mean, m2 = (sent(array) for array in moments())
    assert np.array_equal(bn.inverse_std(count, m2), moments().invstd())
    assert np.array_equal(bn.normalize(X, mean, m2), bn.normalize(X, *tuple(moments())[1:]))
    gathered = sent(moments())
    assert gathered == moments()
    assert np.array_equal(gathered.invstd(), moments().invstd())
    assert gathered.update(X) == moments() + moments()
    weights = np.arange(20, dtype="f4").reshape(4, 5)
    kept = saved(weights=weights, activation="relu", residual=X, running=bn.Running(pure=True), **STATISTICS)
    for own in (saved(), kept):
        assert all(map(np.array_equal, bn.backward(X, X, sent(own)), bn.backward(X, X, own)))
    for own in (layer(), layer(groups=bn.Segments([0, 0, 1, 1], 2))):
        other = sent(own)
        assert np.array_equal(other(X), own(X))
        assert np.array_equal(other.backward(X), own.backward(X))
        assert np.array_equal(other.running_var, own.running_var)
    theirs, other = of_keras(), sent(of_keras())
    assert np.array_equal(other(X, training=True), theirs(X, training=True))
    batch = sent(micro_batches())
    assert np.array_equal(batch.normalize(X), micro_batches().normalize(X))


def public_of(thing: Any) -> Any:
    """The parts of a thing that can be compared: attributes and results."""
    if isinstance(thing, bn.BatchNorm):
        own = {key: value for key, value in thing.__dict__.items() if key != "_last"}
        own.update(grad_gamma=None, grad_beta=None)
        return type(thing).__name__, sorted((key, repr(value)) for key, value in own.items())
    if isinstance(thing, bn.SavedStatistics):
        return [repr(getattr(thing, name)) for name in ("mean", "invstd", "gamma", "beta", "axis", "bits", "outcome")]
    return repr(thing) if "object at" not in repr(thing) else None


@pytest.mark.parametrize("name", THINGS)
def test_there_and_back(name: str) -> None:
    thing = THINGS[name]()
    again = pickle.loads(pickle.dumps(thing))
    assert type(again) is type(thing)
    assert public_of(again) == public_of(thing)


def test_what_comes_back_works() -> None:
    for name in ("BatchNorm1d", "with settings", "without statistics"):
        one = THINGS[name]()
        other = pickle.loads(pickle.dumps(one))
        assert np.array_equal(one(X), other(X))
        assert np.array_equal(one.backward(X), other.backward(X))
        assert np.array_equal(one.grad_gamma, other.grad_gamma)
    for told in ({}, {"activation": "relu", "residual": X}, {"weights": np.ones((4, 5)), "groups": bn.Ghost(2)}):
        known = saved(**told)
        for got, exact in zip(bn.backward(X, X, pickle.loads(pickle.dumps(known))), bn.backward(X, X, known)):
            assert np.array_equal(got, exact)
    batch = micro_batches()
    again = pickle.loads(pickle.dumps(batch))
    assert np.array_equal(again.apply_gradient(X, X), batch.apply_gradient(X, X))
    lazy = pickle.loads(pickle.dumps(bn.LazyBatchNorm1d(momentum=0.5)))
    assert lazy(X).shape == X.shape
    assert type(lazy) is bn.BatchNorm1d


VERSIONED = [
    name for name in THINGS if name not in ("ScaleShift", "Sums", "Folded", "FrameworkState", "Outcome", "StateError")
]


@pytest.mark.parametrize("name", VERSIONED)
def test_a_newer_version_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = THINGS[name]()
    monkeypatch.setattr(pickling, "VERSION", 2)
    data = pickle.dumps(thing)
    monkeypatch.undo()
    # An object inside of the thing is read first, and may be the one that is refused.
    said = r"^this [A-Z]\w+ was pickled in version 2 of the format, but batchnorm \S+ knows versions up to 1"
    with pytest.raises(ValueError, match=said):
        pickle.loads(data)


def test_a_state_without_a_version() -> None:
    for wrong in ({}, {"version": "1"}, None, {"_gamma": 1}):
        with pytest.raises(ValueError, match="has no version, expected 1"):
            bn.BatchNorm1d(3).__setstate__(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="version 0"):
        bn.BatchNorm1d(3).__setstate__({"version": 0, "attributes": {}})


def test_states_of_layers_that_are_damaged() -> None:
    """All of a state is taken, or after an error nothing."""
    layer = bn.BatchNorm1d(3)
    before = repr(sorted(vars(layer).items()))
    state = bn.BatchNorm1d(4, eps=0.5).__getstate__()
    for name in state["attributes"]:
        attributes = {key: value for key, value in state["attributes"].items() if key != name}
        with pytest.raises(ValueError, match=f"^this state of a BatchNorm1d is damaged: it has no {name}$"):
            layer.__setstate__({**state, "attributes": attributes})
    for attributes in (None, []):
        with pytest.raises(ValueError, match="^this state of a BatchNorm1d is damaged: it has no attributes$"):
            layer.__setstate__({**state, "attributes": attributes})
    assert repr(sorted(vars(layer).items())) == before


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "the shape of x": ({"shape": (4, 1 << 18, 5)}, r"\(3,\) are no channels of shape \(4, 262144, 5\)"),
    "channels": ({"channel_shape": (1 << 18,)}, "mean has another shape"),
    "both": ({"channel_shape": (1 << 18,), "shape": (4, 1 << 18, 5)}, "mean has another shape"),
    "channels that are none": ({"channel_shape": 3}, "channel_shape is 3, expected whole numbers"),
    "mean": ({"mean": np.zeros(2)}, r"mean has shape \(2,\), and invstd \(3,\)"),
    "no mean": ({"mean": None}, "'NoneType' object has no attribute 'shape'"),
    "gamma": ({"gamma": b"1234"}, "gamma is not 12 bytes"),
    "beta": ({"beta": "123456789012"}, "beta is not 12 bytes"),
    "axis": ({"axis": "x"}, "axis is 'x'"),
    "dtype": ({"dtype": np.dtype("i4")}, "dtype is none of the library's"),
    "param": ({"param": "f4"}, "param is none of the library's"),
    "bits": ({"bits": np.zeros(1, np.uint8)}, "bits are not one for each element"),
    "rows": ({"rows": 2}, "rows are not those of the groups"),
    "the source": ({"of_source": np.zeros((4, 1, 2))}, "of_source has another shape"),
    "extras": ({"extras": {}}, "'activation'"),
    "no extras": ({"extras": None}, "'NoneType' object is not subscriptable"),
    "call": ({"call": 3}, "'int' object is not subscriptable"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_saved_statistics_that_are_damaged(what: str) -> None:
    """backward() would read as many numbers as they say, past the end of those that there are."""
    changes, message = DAMAGED[what]
    restored, (state,) = saved(activation="relu", save_mask=True, source=bn.Renorm(), **STATISTICS).__reduce__()
    assert restored(state).mean.shape == (3,)
    attributes = dict(state["attributes"])
    attributes["call"] = {**attributes["call"], "extras": dict(attributes["call"]["extras"])}
    for name, value in changes.items():
        within = [each for each in (attributes["call"]["extras"], attributes["call"], attributes) if name in each]
        within[0][name] = value
    with pytest.raises(ValueError, match=f"^this state of a SavedStatistics is damaged: .*({message})"):
        restored({**state, "attributes": attributes})


def test_the_keys_of_a_layer_are_public() -> None:
    """A later version of the package has to know these keys; it may name its own attributes as it likes."""
    state = layer(activation="relu").__getstate__()
    assert state["version"] == 1
    assert sorted(state["attributes"]) == [
        "activation", "affine", "axis", "beta", "dtype", "eps", "frozen", "gamma", "grad_beta", "grad_gamma",
        "grad_residual", "groups", "momentum", "num_batches_tracked", "num_features", "param_dtype", "running",
        "running_mean", "running_var", "source", "track_running_stats", "training", "unbiased",
    ]  # fmt: skip


def test_a_pickle_of_version_1() -> None:
    """The pickle is as files have it: it is written without the package's help."""
    attributes = {
        "activation": None, "affine": True, "axis": 1, "beta": np.zeros(2, "f4"), "dtype": np.dtype("f4"), "eps": 0.0,
        "frozen": False, "gamma": np.float32([2, 3]), "grad_beta": None, "grad_gamma": None, "grad_residual": None,
        "groups": None, "momentum": 0.1, "num_batches_tracked": 7, "num_features": 2, "param_dtype": np.dtype("f4"),
        "running": None, "running_mean": np.zeros(2, "f4"), "running_var": np.ones(2, "f4"), "source": None,
        "track_running_stats": True, "training": False, "unbiased": True,
    }  # fmt: skip
    made = bn.BatchNorm1d.__new__(bn.BatchNorm1d)
    made.__setstate__({"version": 1, "attributes": attributes})
    assert made([[1, 1]]).tolist() == [[2, 3]]
    assert made.num_batches_tracked == 7
