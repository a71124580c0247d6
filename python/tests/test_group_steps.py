# SPDX-License-Identifier: Apache-2.0
"""Steps and derivatives of samples in groups: as each group has them alone, and as small steps have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS

import batchnorm as bn

Array = np.ndarray[Any, Any]

GROUPS: dict[str, Any] = {
    "ghost": bn.Ghost(2),
    "interleaved": bn.Ghost(2, interleaved=True),
    "each sample": bn.Ghost(1),
    "segments": bn.Segments([2, 0, 2, 0, 0, 2], 4),
    "split": bn.Split(3, shared_parameters=True),
    "split parameters": bn.Split(2),
    "conditional": bn.Conditional([1, 0, 1, 1, 2, 0], 3),
}
OF_SAMPLE = {
    "ghost": [0, 0, 1, 1, 2, 2],
    "interleaved": [0, 1, 2, 0, 1, 2],
    "each sample": [0, 1, 2, 3, 4, 5],
    "segments": [2, 0, 2, 0, 0, 2],
    "split": [0, 0, 1, 1, 2, 2],
    "split parameters": [0, 0, 0, 1, 1, 1],
    "conditional": [1, 0, 1, 1, 2, 0],
}
COUNTS = {
    "ghost": 3,
    "interleaved": 3,
    "each sample": 6,
    "segments": 4,
    "split": 3,
    "split parameters": 2,
    "conditional": 3,
}
HAS_PARAMETERS = {"segments", "split parameters", "conditional"}


def parameters(rng: np.random.Generator, name: str, channels: int) -> tuple[Array, Array]:
    rows = (COUNTS[name],) if name in HAS_PARAMETERS else ()
    gamma, beta = rng.normal(1, 0.5, size=(2, *rows, channels))
    return gamma, beta


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_of_groups(rng: np.random.Generator, name: str, layout: str) -> None:
    x = LAYOUTS[layout](rng.normal(50, 1, size=(6, 3, 4, 5)))
    found, of_sample = bn.moments(x, groups=GROUPS[name]), np.array(OF_SAMPLE[name])
    members = [of_sample == g for g in range(COUNTS[name])] if name != "conditional" else [of_sample >= 0]
    assert found.mean.shape == ((3,) if name == "conditional" else (COUNTS[name], 3))
    for row, member in enumerate(members):
        values = np.moveaxis(x[member], 1, 0).reshape(3, -1)
        count, mean, m2 = (each.reshape(-1, 3)[row] for each in found)
        assert count.tolist() == [values.shape[1]] * 3
        if values.size:
            assert np.allclose(mean, values.mean(1), rtol=1e-14, atol=0)
            assert np.allclose(m2, values.var(1) * values.shape[1], rtol=1e-12, atol=0)
        else:
            assert not mean.any()
            assert not m2.any()
    if name != "conditional":
        whole = bn.merge_moments(zip(*found))
        for ours, expected in zip(whole, bn.moments(x)):
            assert np.allclose(ours, expected, rtol=1e-13, atol=0)


def test_rows_as_an_all_gather_has_them(rng: np.random.Generator) -> None:
    parts = [bn.moments(rng.normal(3, 1, size=(n, 2, 3, 5)), (1, 2)) for n in (2, 0, 4)]
    gathered = np.array([list(part) for part in parts])
    assert gathered.shape == (3, 3, 2, 3)
    expected = bn.merge_moments(parts)
    for given in (gathered, gathered[:, :, ::-1][:, :, ::-1], list(gathered), np.asfortranarray(gathered)):
        for ours, wanted in zip(bn.merge_moments(given), expected):
            assert ours.tobytes() == wanted.tobytes()
    gathered[1, 0] = -1
    with pytest.raises(ValueError, match="a finite number of values, at least 0"):
        bn.merge_moments(gathered)
    for wrong in (gathered[:0], gathered[:, :2], gathered[:, :, :0]):
        with pytest.raises(ValueError, match=r"parts is empty|part 0|channels"):
            bn.merge_moments(wrong)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("has_weights", [False, True])
def test_steps_of_groups(rng: np.random.Generator, name: str, layout: str, has_weights: bool) -> None:
    """The layer by its steps, which have to give what it gives."""
    x, dy = (LAYOUTS[layout](each) for each in rng.normal(2, 1, size=(2, 6, 3, 4, 5)))
    gamma, beta = parameters(rng, name, 3)
    told: dict[str, Any] = {"groups": GROUPS[name]}
    if has_weights:
        told |= {"weights": rng.integers(0, 3, size=(6, 4, 5)) + (np.arange(5) == 2), "masked": "zero"}
    of_moments = {key: value for key, value in told.items() if key != "masked"}
    count, mean, m2 = bn.moments(x, **of_moments)
    invstd = bn.inverse_std(count, m2)
    y = bn.normalize(x, mean, invstd, gamma, beta, **told)
    sums = bn.backward_reduce(dy, x, mean, invstd, **told)
    assert sums.sum_dy.shape == (COUNTS[name], 3)
    total = list(sums)
    if name == "conditional":
        total = [(gamma * each).sum(0) for each in sums]
    dx = bn.backward_apply(dy, x, mean, invstd, np.maximum(count, 1), *total, gamma, **told)

    expected_y, saved = bn.forward_training(x, gamma, beta, **told)
    expected_dx, dgamma, dbeta = bn.backward(dy, x, saved)
    found = [each if name in HAS_PARAMETERS else each.sum(0) for each in sums]
    for ours, wanted in ((y, expected_y), (dx, expected_dx), (found[0], dbeta), (found[1], dgamma)):
        assert np.allclose(ours, wanted, rtol=1e-11, atol=1e-12)
    given = dy.copy()
    assert bn.backward_apply(given, x, mean, invstd, np.maximum(count, 1), *total, gamma, **told, out=given) is given
    assert np.allclose(given, dx, rtol=1e-14, atol=1e-14)


def test_sums_of_samples_with_statistics_of_the_batch(rng: np.random.Generator) -> None:
    x, dy = rng.normal(2, 1, size=(2, 5, 3, 7)).astype("f4")
    count, mean, m2 = bn.moments(x)
    invstd = bn.inverse_std(count, m2)
    each = bn.backward_reduce(dy, x, *(np.tile(row, (5, 1)) for row in (mean, invstd)), groups=bn.Ghost(1))
    shared = bn.backward_reduce(dy, x, mean, invstd, groups=bn.Conditional(range(5), 5))
    alone = [bn.backward_reduce(dy[n : n + 1], x[n : n + 1], mean, invstd) for n in range(5)]
    for n in range(5):
        for ours, also, wanted in zip(each, shared, alone[n]):
            assert ours[n].tobytes() == also[n].tobytes() == wanted.tobytes()


def moved(given: dict[str, Array], direction: dict[str, Array], step: float) -> dict[str, Array]:
    return {name: value + step * direction[name] for name, value in given.items()}


def directions(rng: np.random.Generator, given: dict[str, Array]) -> dict[str, Array]:
    return {name: rng.normal(size=value.shape) for name, value in given.items()}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("axis", [1, -1])
def test_jvp_of_groups(rng: np.random.Generator, name: str, axis: int) -> None:
    x = rng.normal(2, 1, size=(6, 3, 4, 3))
    gamma, beta = parameters(rng, name, 3)
    given = {"x": x, "gamma": gamma, "beta": beta}
    along = directions(rng, given)

    def y(step: float) -> Array:
        return bn.forward_training(**moved(given, along, step), axis=axis, groups=GROUPS[name])[0]

    _, saved = bn.forward_training(**given, axis=axis, groups=GROUPS[name])
    tangent = bn.jvp(x, saved, **{f"{key}_tangent": value for key, value in along.items()})
    assert np.allclose(tangent, (y(1e-5) - y(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-7)
    out = along["x"].copy()
    again = bn.jvp(x, saved, x_tangent=out, gamma_tangent=along["gamma"], beta_tangent=along["beta"], out=out)
    assert again is out
    assert again.tobytes() == tangent.tobytes()


@pytest.mark.parametrize("name", sorted(set(GROUPS) - {"conditional"}))
@pytest.mark.parametrize("axis", [1, -1])
def test_double_backward_of_groups(rng: np.random.Generator, name: str, axis: int) -> None:
    x, dy = rng.normal(2, 1, size=(2, 6, 3, 4, 3))
    gamma, _ = parameters(rng, name, 3)
    given = {"x": x, "dy": dy, "gamma": gamma}
    weights = [rng.normal(size=shape) for shape in (x.shape, gamma.shape, gamma.shape)]
    along = directions(rng, given)

    def loss(step: float) -> float:
        at = moved(given, along, step)
        _, saved = bn.forward_training(at["x"], at["gamma"], axis=axis, groups=GROUPS[name])
        results = bn.backward(at["dy"], at["x"], saved)
        return float(sum((weight * result).sum() for weight, result in zip(weights, results)))

    _, saved = bn.forward_training(x, gamma, axis=axis, groups=GROUPS[name])
    grads = dict(zip(("grad_dx", "grad_dgamma", "grad_dbeta"), weights))
    grad_dy, grad_x, grad_gamma = bn.double_backward(dy, x, saved, **grads)
    assert grad_gamma.shape == gamma.shape
    found = (grad_dy * along["dy"]).sum() + (grad_x * along["x"]).sum() + (grad_gamma * along["gamma"]).sum()
    assert np.isclose(found, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)


def test_derivatives_that_groups_do_not_have(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 1))
    _, saved = bn.forward_training(x, gamma=np.ones((2, 3)), groups=bn.Conditional([0, 1, 0, 1], 2))
    with pytest.raises(ValueError, match="share their statistics"):
        bn.double_backward(x, x, saved, grad_dx=x)
    running = {"running_mean": np.zeros((3, 3)), "running_var": np.ones((3, 3))}
    policy = bn.Running(single_value="running")
    _, saved = bn.forward_training(x, groups=bn.Segments([0, 0, 0, 2], 3), **running, running=policy)
    for call in (lambda: bn.jvp(x, saved, x_tangent=x), lambda: bn.double_backward(x, x, saved, grad_dx=x)):
        with pytest.raises(ValueError, match="some were normalized with running statistics"):
            call()
    _, saved = bn.forward_training(x, groups=bn.Ghost(2))
    with pytest.raises(ValueError, match=r"x has shape|saved"):
        bn.jvp(x[:2], saved, x_tangent=x[:2])


@pytest.mark.parametrize("call", ["moments", "normalize", "reduce", "apply"])
def test_groups_that_are_wrong(rng: np.random.Generator, call: str) -> None:
    x, rows = rng.normal(size=(6, 3, 4)), np.ones((3, 3))
    calls: dict[str, Any] = {
        "moments": lambda groups, rows: bn.moments(x, groups=groups),
        "normalize": lambda groups, rows: bn.normalize(x, rows, rows, groups=groups),
        "reduce": lambda groups, rows: bn.backward_reduce(x, x, rows, rows, groups=groups),
        "apply": lambda groups, rows: bn.backward_apply(x, x, *[rows] * 5, groups=groups),
    }
    made = calls[call]
    made(bn.Ghost(2), rows)
    with pytest.raises(ValueError, match="groups are of 4 samples, which do not divide the 6"):
        made(bn.Ghost(4), rows)
    with pytest.raises(TypeError, match="groups is of type int"):
        made(3, rows)
    with pytest.raises(ValueError, match="index has a group 3"):
        made(bn.Segments([0, 1, 2, 3, 0, 0], 3), rows)
    if call != "moments":
        with pytest.raises(ValueError, match=r"has shape \(3,\), expected \(3, 3\)"):
            made(bn.Ghost(2), rows[0])
