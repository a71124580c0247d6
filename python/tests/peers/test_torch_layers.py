# SPDX-License-Identifier: Apache-2.0
"""PyTorch's BatchNorm1d, 2d and 3d and their lazy forms: the same arguments, training, states, texts and refusals."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from comparing import Array, Batch, near
from in_torch import array, tensor, torch

import batchnorm as bn

RANKS = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}
NAMES = [*RANKS, *("Lazy" + name for name in RANKS)]


def state_of(theirs: Any) -> dict[str, Array]:
    return {key: array(value).copy() for key, value in theirs.state_dict().items()}


def load(theirs: Any, ours: Any) -> None:
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})


def arguments(rng: np.random.Generator, momentum: float, eps: float) -> dict[str, Any]:
    told = {"eps": eps, "momentum": None if rng.random() < 0.3 else momentum}
    told.update({name: bool(rng.random() < 0.7) for name in ("affine", "track_running_stats", "bias")})
    print(told)
    return told


def compare_step(batch: Batch, ours: Any, theirs: Any) -> None:
    """One call forward and one backward of both."""
    mine = ours(batch.x)  # a lazy layer has arrays from now on
    of_batch = ours.training or ours.running_mean is None
    batch.gamma = np.ones_like(batch.gamma) if ours.gamma is None else ours.gamma.copy()
    batch.beta = np.zeros_like(batch.beta) if ours.beta is None else ours.beta.copy()
    if not of_batch:
        batch.running_mean, batch.running_var = ours.running_mean.copy(), ours.running_var.copy()
    sizes = batch.sizes(frozen=not of_batch)
    told: dict[str, Any] = {"computed": batch.dtype, "count": batch.count}
    x = tensor(batch.x.copy(), gradient=True)
    theirs.zero_grad()
    y = theirs(x)
    y.backward(tensor(batch.dy))
    near(mine, array(y), size=sizes.y, **told)
    near(ours.backward(batch.dy), array(x.grad), size=sizes.dx, **told)
    for grad, parameter, size in (
        (ours.grad_gamma, theirs.weight, sizes.dgamma),
        (ours.grad_beta, theirs.bias, sizes.dbeta),
    ):
        assert (grad is None) == (parameter is None)
        if grad is not None:
            near(grad, array(parameter.grad), size=size, **told)
    if theirs.track_running_stats:
        near(ours.running_mean, array(theirs.running_mean), size=sizes.mean, **told)
        near(ours.running_var, array(theirs.running_var), size=sizes.var + 1, **told)
        assert ours.num_batches_tracked == int(theirs.num_batches_tracked)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("case", range(6))
def test_training(rng: np.random.Generator, name: str, lazy: bool, dtype: str, case: int) -> None:
    """Steps of gradient descent, an evaluation, and what follows a reset."""
    batch = Batch(rng, dtype, ranks=RANKS[name])
    told = arguments(rng, batch.momentum, batch.eps)
    if lazy:
        ours, theirs = getattr(bn, "Lazy" + name)(**told, dtype=dtype), getattr(torch.nn, "Lazy" + name)(**told)
    else:
        ours = getattr(bn, name)(batch.channels, **told, dtype=dtype)
        theirs = getattr(torch.nn, name)(batch.channels, **told)
    theirs = theirs.to(tensor(batch.x).dtype)
    for _ in range(3):
        compare_step(batch, ours, theirs)
        assert type(ours).__name__ == type(theirs).__name__ == name
        for parameter, grad in ((ours.gamma, ours.grad_gamma), (ours.beta, ours.grad_beta)):
            if parameter is not None:
                parameter -= 0.01 / (1 + abs(grad).max()) * grad + 0.1
        load(theirs, ours)
        batch = Batch(rng, dtype, ranks=RANKS[name], channels=batch.channels)
        batch.eps = told["eps"]
    ours.eval()
    theirs.eval()
    compare_step(batch, ours, theirs)
    ours.train().reset_running_stats()
    theirs.train().reset_running_stats()
    compare_step(batch, ours, theirs)
    ours.reset_parameters()
    theirs.reset_parameters()
    states = ours.state_dict(), state_of(theirs)
    assert list(states[0]) == list(states[1])
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_in_the_same_order(name: str) -> None:
    theirs = inspect.signature(getattr(torch.nn, name)).parameters
    wanted = [each for each in theirs if each != "device"]
    ours = inspect.signature(getattr(bn, name)).parameters
    positional = [each for each in wanted if theirs[each].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    for each in wanted:
        if each != "dtype" and each in ours:
            assert ours[each].default == theirs[each].default, each
    # Their arguments that are keywords alone go through the lazy forms.
    made = getattr(bn, name)(*([] if name.startswith("Lazy") else [3]), bias=False)
    assert made.bias is None


@pytest.mark.parametrize("name", NAMES)
def test_input_of_another_rank_is_refused_in_the_same_words(name: str) -> None:
    for rank in range(8):
        shape = (2, 3, 2, 2, 2, 2, 2)[:rank]
        ours, theirs = (getattr(m, name)(*([] if name.startswith("Lazy") else [3])) for m in (bn, torch.nn))
        if rank in RANKS[name.removeprefix("Lazy")]:
            assert ours(np.ones(shape, "f4")).shape == tuple(theirs(torch.ones(shape)).shape)
            continue
        # A lazy layer of theirs needs an axis of channels to say it, and is lazy no more when it does.
        if name.startswith("Lazy"):
            theirs = getattr(torch.nn, name.removeprefix("Lazy"))(3)
        with pytest.raises(ValueError, match="expected") as by_us:
            ours(np.ones(shape, "f4"))
        with pytest.raises(ValueError, match="expected") as by_them:
            theirs(torch.ones(shape))
        # Ours goes on to say which layer takes that many axes, where one does.
        assert str(by_us.value).startswith(str(by_them.value))


@pytest.mark.parametrize("name", RANKS)
def test_repr_tells_the_same(rng: np.random.Generator, name: str) -> None:
    for _ in range(20):
        told = arguments(rng, 0.25, 1e-3)
        for lazy in (False, True):
            kind, n = ("Lazy" + name, []) if lazy else (name, [5])
            ours, theirs = getattr(bn, kind)(*n, **told), getattr(torch.nn, kind)(*n, **told)
            # Theirs says always whether there is a bias, and of a lazy layer that it has 0 channels.
            default = {"bias=True"} if told["affine"] else {"bias=False"}
            default |= {"0"} if lazy else set()
            assert set(ours.extra_repr().split(", ")) == set(theirs.extra_repr().split(", ")) - default
            assert repr(ours) == f"{kind}({ours.extra_repr()})"


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("case", range(8))
def test_states_go_both_ways(rng: np.random.Generator, lazy: bool, case: int) -> None:
    told = arguments(rng, 0.25, 1e-3)
    source = torch.nn.BatchNorm2d(3, **told)
    source(torch.from_numpy(rng.normal(size=(4, 3, 2, 2)).astype("f4")))
    ours = bn.LazyBatchNorm2d(**told) if lazy else bn.BatchNorm2d(3, **told)
    if lazy and not source.state_dict():
        return
    ours.load_state_dict(state_of(source))
    # Theirs is a LazyBatchNorm2d with num_features 0 until the call after it.
    assert type(ours) is bn.BatchNorm2d
    assert ours.num_features == 3
    target = torch.nn.LazyBatchNorm2d(**told) if lazy else torch.nn.BatchNorm2d(3, **told)
    load(target, ours)
    states = state_of(source), state_of(target), ours.state_dict()
    for state in states[1:]:
        assert list(state) == list(states[0])
        for key in state:
            assert np.array_equal(state[key], states[0][key])
            assert state[key].dtype == states[0][key].dtype


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_statistics_that_are_taken_away_or_not_tracked(rng: np.random.Generator, lazy: bool) -> None:
    batches = [Batch(rng, "float32", ranks=(4,), channels=3) for _ in range(3)]
    ours, theirs = (m.LazyBatchNorm2d() if lazy else m.BatchNorm2d(3) for m in (bn, torch.nn))
    for batch in batches:
        batch.eps = 1e-5
    compare_step(batches[0], ours, theirs)
    before = ours.running_mean.copy()
    ours.track_running_stats = theirs.track_running_stats = False
    compare_step(batches[1], ours, theirs)
    assert np.array_equal(ours.running_mean, before)
    assert ours.num_batches_tracked == int(theirs.num_batches_tracked) == 1
    ours.running_mean = ours.running_var = theirs.running_mean = theirs.running_var = None
    ours.eval()
    theirs.eval()
    compare_step(batches[2], ours, theirs)


def test_one_value_is_refused_by_both_and_counted_by_theirs() -> None:
    ours, theirs = bn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="value"):
        ours(np.ones((1, 3), "f4"))
    with pytest.raises(ValueError, match="value"):
        theirs(torch.ones(1, 3))
    assert (ours.num_batches_tracked, int(theirs.num_batches_tracked)) == (0, 1)


def test_tensors_without_values() -> None:
    with pytest.raises(TypeError, match="weight is of type torch.*UninitializedParameter, expected an array"):
        bn.from_state(torch.nn.LazyBatchNorm2d().state_dict(), "pytorch")
    with pytest.raises(TypeError, match="weight is of type torch.Tensor, expected an array"):
        bn.from_state(torch.nn.BatchNorm2d(3, device="meta").state_dict(), "pytorch")


@pytest.mark.parametrize("tracked", [[7], 7.0, [7.0], [[7]], 7.5])
def test_what_pytorch_loads_as_a_count(tracked: Any) -> None:
    """Counts of older versions and averages over clients: PyTorch rounds them without a word, here they are errors."""
    theirs = torch.nn.BatchNorm1d(3)
    state = {**theirs.state_dict(), "num_batches_tracked": torch.tensor(tracked)}
    if tracked == [[7]]:
        with pytest.raises(RuntimeError):
            theirs.load_state_dict(state)
    else:
        theirs.load_state_dict(state)
        assert theirs.num_batches_tracked == 7
    ours = bn.BatchNorm1d(3)
    for load in (ours.load_state_dict, lambda state: bn.from_state(state, "pytorch")):
        if tracked == 7.5:
            with pytest.raises(ValueError, match="num_batches_tracked is 7.5, expected a whole number"):
                load(state)
        else:
            assert (load(state) or ours).num_batches_tracked == 7


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_statistics_that_pytorch_loads(value: float) -> None:
    """With these PyTorch evaluates to NaN, or to beta whatever x is."""
    theirs = torch.nn.BatchNorm1d(2).eval()
    state = {**theirs.state_dict(), "running_var": torch.tensor([1.0, value])}
    theirs.load_state_dict(state)
    y = theirs(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))[:, 1]
    assert torch.isnan(y).all() or (y == 0).all()
    for load in (bn.BatchNorm1d(2).load_state_dict, lambda state: bn.from_state(state, "pytorch")):
        with pytest.raises(ValueError, match=f"running_var is {value:g} in channel 1"):
            load(state)
