# SPDX-License-Identifier: Apache-2.0
"""Keys of states: a layer in a larger state, layers that are not there, keys that are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from states import FRAMEWORKS, KEYS, arrays_of, attributes, layer_for, state_of

import batchnorm as bn

Array = np.ndarray[Any, Any]


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
def test_keys_with_a_separator_in_the_prefix(framework: str) -> None:
    for prefix in ("a", "a/" if "/" in KEYS[framework][0] else "a."):
        assert list(bn.to_state(layer_for(framework), framework, prefix=prefix).arrays)[:4] == KEYS[framework]
    nested_one = [
        key.replace("a", "b.a", 1) if framework != "flax" else key.replace("/a/", "/b.a/") for key in KEYS[framework]
    ]
    assert list(bn.to_state(layer_for(framework), framework, prefix="b.a").arrays)[:4] == nested_one
    bare = [key.replace("/a/", "/") if framework == "flax" else key[2:] for key in KEYS[framework]]
    assert list(bn.to_state(layer_for(framework), framework).arrays)[:4] == bare


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
    # Without the names of collections, the keys are those of nnx.
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
