# SPDX-License-Identifier: Apache-2.0
"""Keys of variables: suffixes, what an optimizer keeps, and Keras's variables by number."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

import batchnorm as bn
from batchnorm.interop import conventions

Array = np.ndarray[Any, Any]


def layer_state(prefix: str, suffix: str = "") -> dict[str, Any]:
    names = "gamma", "beta", "moving_mean", "moving_variance"
    return {f"{prefix}{name}{suffix}": np.full(2, value, "f4") for name, value in zip(names, (1.5, 0.5, 2, 3))}


@pytest.mark.parametrize("framework", ["keras", "tensorflow"])
@pytest.mark.parametrize("suffix", ["", ":0", "/.ATTRIBUTES/VARIABLE_VALUE"])
def test_suffixes_of_variables(framework: str, suffix: str) -> None:
    layer = bn.from_state(layer_state("net/bn1/", suffix), framework, prefix="net/bn1")
    assert layer.running_var.tolist() == [3, 3]
    with pytest.raises(KeyError, match=r"\(layers are at prefix 'net/bn1'\)"):
        bn.from_state(layer_state("net/bn1/", suffix), framework, prefix="bn1")
    both = {**layer_state("bn1/"), **layer_state("bn1/", ":0")}
    with pytest.raises(ValueError, match="bn1/gamma:0 and bn1/gamma are the same key"):
        bn.from_state(both, framework, prefix="bn1")


@pytest.mark.parametrize("framework", get_args(conventions.Framework))
@pytest.mark.parametrize("key", ["", "/", ".", ":0", "arg:", "vars", "vars/", "/vars/0/"])
def test_keys_that_are_no_names(framework: Any, key: str) -> None:
    for prefix in ("", "a"):
        with pytest.raises(KeyError, match="is unexpected|is missing|has 1 arrays"):
            bn.from_state({key: np.ones(2)}, framework, prefix=prefix)


def test_an_output_that_is_not_the_variable() -> None:
    with pytest.raises(KeyError, match="bn1/gamma:1 is unexpected"):
        bn.from_state({**layer_state("bn1/"), "bn1/gamma:1": np.ones(2)}, "keras", prefix="bn1")


@pytest.mark.parametrize("slot", ["Adam", "Adam_1", "Momentum", "RMSProp", "RMSProp_1", "Ftrl", "Adagrad"])
@pytest.mark.parametrize("end", ["", ":0"])
def test_what_an_optimizer_keeps_is_passed_over(slot: str, end: str) -> None:
    state = {**layer_state("a/BatchNorm/", end), f"a/BatchNorm/gamma/{slot}{end}": np.full(2, 9, "f4")}
    layer = bn.from_state(state, "tensorflow", prefix="a/BatchNorm")
    assert layer.gamma.tolist() == [1.5, 1.5]


def test_slots_of_a_checkpoint_of_objects() -> None:
    state = layer_state("layer-1/", "/.ATTRIBUTES/VARIABLE_VALUE")
    slot = "layer-1/gamma/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    layer = bn.from_state({**state, slot: np.full(2, 9, "f4")}, "keras", prefix="layer-1")
    assert layer.gamma.tolist() == [1.5, 1.5]


def test_suffixes_that_could_be_meant_are_named() -> None:
    average = "bn1/gamma/ExponentialMovingAverage"
    told = f"{average} is unexpected: the suffix ExponentialMovingAverage says that it is an average of gamma over"
    for state in ({**layer_state("bn1/"), average: np.ones(2)}, {average: np.ones(2)}):
        with pytest.raises(KeyError, match=told):
            bn.from_state(state, "tensorflow", prefix="bn1")
    with pytest.raises(
        KeyError, match="bn1/beta/local_step is unexpected: the suffix local_step after beta is none of"
    ):
        bn.from_state({**layer_state("bn1/"), "bn1/beta/local_step": np.ones(2)}, "tensorflow", prefix="bn1")
    # Arrays of another layer do not matter.
    bn.from_state({**layer_state("bn2/"), average: np.ones(2)}, "tensorflow", prefix="bn2")


def variables(*values: float) -> dict[str, Any]:
    return {f"layers/bn/vars/{index}": np.full(2, value, "f4") for index, value in enumerate(values)}


def test_variables_by_number() -> None:
    """A .weights.h5 of Keras 3 numbers gamma, beta, mean and variance in this order."""
    layer = bn.from_state(variables(1, 2, 3, 4), "keras", prefix="layers/bn")
    assert [layer.gamma[0], layer.beta[0], layer.running_mean[0], layer.running_var[0]] == [1, 2, 3, 4]
    layer = bn.from_state(variables(2, 3, 4), "keras", prefix="layers/bn", scale=False)
    assert layer.gamma is None
    assert [layer.beta[0], layer.running_mean[0], layer.running_var[0]] == [2, 3, 4]
    layer = bn.from_state(variables(1, 3, 4), "keras", prefix="layers/bn", center=False)
    assert layer.beta is None
    assert [layer.gamma[0], layer.running_mean[0], layer.running_var[0]] == [1, 3, 4]
    layer = bn.from_state(variables(3, 4), "keras", prefix="layers/bn", scale=False, center=False)
    assert [layer.running_mean[0], layer.running_var[0]] == [3, 4]


@pytest.mark.parametrize(
    ("state", "told", "message"),
    [
        (variables(1, 2, 3), {}, r"layers/bn/vars has 3 arrays \(0, 1, 2\), expected 4: .* tell scale=False or center"),
        (variables(1, 2), {}, r"layers/bn/vars has 2 arrays \(0, 1\), expected 4"),
        (variables(1, 2), {"scale": False}, r"layers/bn/vars has 2 arrays"),
        (variables(*range(7)), {}, "layers/bn/vars has 7 arrays .*, the arrays of a layer with renorm, or of another"),
        ({"layers/bn/vars/5": 1.0}, {}, r"layers/bn/vars has 1 arrays \(5\)"),
        (variables(1, 2, 3, 4), {"scale": False}, "layers/bn/vars/0 is unexpected, as scale is False"),
        ({**variables(1, 2, 3, 4), "layers/bn/gamma": 1.0}, {}, "are the same key"),
        ({**variables(1, 2, 3, 4), "layers/bn/x": 1.0}, {}, "layers/bn/x is unexpected"),
    ],
)
def test_variables_by_number_that_are_not_certain(state: Any, told: Any, message: str) -> None:
    with pytest.raises((KeyError, ValueError), match=message):
        bn.from_state(state, "keras", prefix="layers/bn", **told)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow", "flux"])
def test_variables_by_number_are_keras_s(framework: Any) -> None:
    with pytest.raises(KeyError, match="is missing|is unexpected"):
        bn.from_state(variables(1, 2, 3, 4), framework, prefix="layers/bn")


def test_layers_of_numbered_variables_are_found() -> None:
    with pytest.raises(KeyError, match=r"is missing \(layers are at prefix 'layers/bn'\)"):
        bn.from_state(variables(1, 2, 3, 4), "keras", prefix="bn")
    with pytest.raises(KeyError, match=r"prefix 'layers/bn'"):
        bn.from_state(variables(1, 2, 3, 4), "keras")
