# SPDX-License-Identifier: Apache-2.0
"""The claim of each experiment holds for every seed, and not without its cause; and what it is measured by."""

from __future__ import annotations

import copy
import math
from typing import Any, Callable

import numpy as np
import pytest
from measuring import SEEDS, Patch, measured

from batchnorm.demo import mistake
from batchnorm.demo.network import Network, cross_entropy
from batchnorm.experiments import NAMES, batch_size, landscape, momentum, rates, result, scaler, training
from batchnorm.experiments.along_gradient import look_ahead
from batchnorm.experiments.claims import Check, Claim, Row, Rows, deviation, distinct, mean, values
from batchnorm.experiments.result import Settings, module_of


def changed(rows: Rows, change: Callable[[Row], Row]) -> list[Row]:
    return [change(dict(row)) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_claim_holds_for_every_seed(name: str) -> None:
    found = measured(name)
    assert found.claim.holds, found.claim.checks
    for seed in found.settings.seeds:
        alone = module_of(name).claim([row for row in found.rows if row["seed"] == seed])
        assert alone.holds, (seed, alone.checks)


def no_batch_norm_at_all(patch: Patch, name: str) -> None:
    module = module_of(name)
    build = training.build

    def plain(seed: int, sizes: tuple[int, ...] = training.SIZES, **given: Any) -> Network:
        return build(seed, sizes, **{**given, "batch_norm": False})

    patch.setattr(module, "build", plain)


def the_usual_momentum(patch: Patch, _: str) -> None:
    build = training.build
    patch.setattr(momentum, "build", lambda seed, **_: build(seed, batch_norm=True))


def large_batches(patch: Patch, _: str) -> None:
    fit = training.fit
    patch.setattr(batch_size, "fit", lambda *given, **named: fit(*given, **{**named, "batch": 32, "rate": 0.05}))


def scaled_beforehand(patch: Patch, _: str) -> None:
    split = scaler.split
    patch.setattr(scaler, "split", lambda name, seed, scaled: split(name, seed, True))


def eval_called(patch: Patch, _: str) -> None:
    original = mistake.accuracy_in_batches

    def right(network: Network, *given: Any) -> float:
        network.eval()
        return original(network, *given)

    patch.setattr(mistake, "accuracy_in_batches", right)


ABLATIONS = {
    "landscape": no_batch_norm_at_all,
    "rates": no_batch_norm_at_all,
    "weights": no_batch_norm_at_all,
    "momentum": the_usual_momentum,
    "batch-size": large_batches,
    "placement": no_batch_norm_at_all,
    "scaler": scaled_beforehand,
    "eval-mode": eval_called,
}


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_without_its_cause(name: str, monkeypatch: Patch) -> None:
    ABLATIONS[name](monkeypatch, name)
    found = result.perform(name, Settings((0,), quick=True))
    assert not found.claim.holds, found.claim.checks
    assert found.lesson.startswith("Not in this run: ")


def test_identical_networks_show_no_difference(monkeypatch: Patch) -> None:
    no_batch_norm_at_all(monkeypatch, "landscape")
    rows = landscape.measure(Settings((0,), quick=True))
    assert [check.value for check in landscape.claim(rows).checks] == [1, 1, 1]


def flipped(row: Row) -> Row:
    return {**row, "batch norm": not row["batch norm"]}


def renamed(column: str, one: str, other: str) -> Callable[[Row], Row]:
    return lambda row: {**row, column: {one: other, other: one}.get(row[column], row[column])}


TAMPERED: dict[str, Callable[[Row], Row]] = {
    "landscape": flipped,
    "rates": flipped,
    "weights": flipped,
    "momentum": lambda row: {**row, "recalibrated": row["accuracy"]},
    "batch-size": renamed("kind", "batch norm", "without batch norm"),
    "placement": lambda row: {**row, "accuracy": row["accuracy"] - 10 * (row["place"] == "before")},
    "scaler": renamed("kind", "batch norm first", "raw"),
    "eval-mode": lambda row: {**row, "right": row["shuffled"]},
}


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_for_other_numbers(name: str) -> None:
    rows = changed(measured(name).rows, TAMPERED[name])
    if name == "batch-size":  # the noise is measured where batch norm is
        rows = changed(rows, lambda row: {**row, "noise": 1 / math.sqrt(row["size"])})
    assert not module_of(name).claim(rows).holds


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_for_what_is_no_number(name: str) -> None:
    settings = {"rate", "scale", "momentum", "noise"}

    def spoil(row: Row) -> Row:
        return {key: math.nan if isinstance(row[key], float) and key not in settings else row[key] for key in row}

    assert not module_of(name).claim(changed(measured(name).rows, spoil)).holds


def test_every_check_counts() -> None:
    assert [Check("x", value, ">=", 2).holds for value in (1.9, 2, 2.1, math.nan)] == [False, True, True, False]
    assert [Check("x", value, "<=", 2).holds for value in (1.9, 2, 2.1, math.nan)] == [True, True, False, False]
    good, bad = Check("x", 3, ">=", 2), Check("x", 1, ">=", 2)
    assert Claim("", (good, good)).holds
    assert not Claim("", (good, bad)).holds
    assert not Claim("", (bad, good)).holds
    assert str(bad) == "x: 1 >= 2, which fails"


def test_rows_are_looked_up_by_all_that_is_given() -> None:
    rows = [{"a": 1, "b": True, "c": 2.0}, {"a": 1, "b": False, "c": 4.0}, {"a": 2, "b": True, "c": 9.0}]
    assert values(rows, "c", a=1) == [2, 4]
    assert (mean(rows, "c", a=1), deviation(rows, "c", a=1)) == (3, math.sqrt(2))
    assert (mean(rows, "c", a=1, b=False), deviation(rows, "c", a=1, b=False)) == (4, 0)
    assert distinct(rows, "a") == [1, 2]
    with pytest.raises(ValueError, match="no row has a 3"):
        mean(rows, "c", a=3)


def test_look_ahead_finds_what_steps_of_a_copy_find_and_leaves_no_trace() -> None:
    network, data = training.build(0, (64, 16, 16, 10), batch_norm=True), training.digits(0)
    training.fit(network, data, rate=0.1, epochs=1, seed=0)
    x, labels = data.train_x[:64], data.train_y[:64]

    def at(distance: float) -> tuple[float, Any]:
        copied = copy.deepcopy(network)
        copied.backward(cross_entropy(copied(x), labels)[1])
        copied.descend(distance)
        loss, gradient = cross_entropy(copied(x), labels)
        copied.backward(gradient)
        return loss, np.concatenate([gradient.ravel() for _, gradient in copied.parameters()]).astype(float)

    kept = copy.deepcopy(network)
    found = look_ahead(network, x, labels, [0.1, 0.4])
    (loss, here), (near, at_near), (far, at_far) = at(0), at(0.1), at(0.4)
    moved = [np.linalg.norm(there - here) for there in (at_near, at_far)]
    # Steps are rounded to float32 either way, by the same operations.
    assert found == pytest.approx(
        {
            "loss": loss,
            "lowest loss": min(near, far),
            "highest loss": max(near, far),
            "gradient": np.linalg.norm(here),
            "least change": min(moved),
            "largest change": max(moved),
            "beta": max(moved[0] / 0.1, moved[1] / 0.4) / np.linalg.norm(here),
        },
        rel=1e-6,
    )
    for (value, _), (before, _) in zip(network.parameters(), kept.parameters()):
        np.testing.assert_array_equal(value, before)
    for norm, other in zip(network.norms, kept.norms):
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, other.state_dict()[key])


def test_batches_are_of_one_size_and_hold_no_sample_twice() -> None:
    drawn = list(training.batches(23, 5, np.random.default_rng(0)))
    assert [len(batch) for batch in drawn] == [5, 5, 5, 5]
    assert len(set(np.concatenate(drawn).tolist())) == 20


def test_training_ends_when_the_loss_is_no_number() -> None:
    seen: list[int] = []
    network = training.build(0, batch_norm=False)
    training.fit(network, training.digits(0), rate=1e30, epochs=3, seed=0, before_step=lambda x, _: seen.append(len(x)))
    assert 1 < len(seen) < 21
    assert 0 <= training.percent_right(network, training.digits(0)) <= 20


def test_noise_of_independent_samples_falls_with_the_root_of_their_number() -> None:
    network, data = training.build(0, batch_norm=True), training.digits(0)
    states = [norm.state_dict() for norm in network.norms]
    at_one, at_four, at_all = (batch_size.noise(network, data.train_x, size) for size in (1, 4, len(data.train_x)))
    assert at_one == pytest.approx(1, abs=1e-3)  # in standard deviations
    assert at_four == pytest.approx(0.5, abs=0.05)
    assert at_all == pytest.approx(0, abs=1e-5)
    for norm, state in zip(network.norms, states):
        assert norm.training
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, state[key])


def test_a_scaled_table_has_columns_of_one_unit() -> None:
    for name in scaler.TABLES:
        raw, scaled = (scaler.split(name, 0, each) for each in (False, True))
        np.testing.assert_array_equal(raw.test_y, scaled.test_y)
        assert np.ptp(raw.train_x.std(axis=0)) > 100
        mean_of, std_of = raw.train_x.mean(axis=0, dtype=float), raw.train_x.std(axis=0, dtype=float)
        for one, other in ((raw.train_x, scaled.train_x), (raw.test_x, scaled.test_x)):
            # float32 columns of up to 2,000 deviations from 0 are rounded to 2^-24 of that
            np.testing.assert_allclose(other, (one - mean_of) / std_of, rtol=0, atol=2e-3)


def test_both_places_are_tried() -> None:
    rows = measured("placement").rows
    before, after = ([row["accuracy"] for row in rows if row["place"] == place] for place in ("before", "after"))
    assert sum(one != other for one, other in zip(before, after)) > len(before) / 2


def test_weights_do_not_depend_on_momentum() -> None:
    rows = measured("momentum").rows
    for batch in momentum.RATES:
        for seed in SEEDS:
            assert len(set(values(rows, "recalibrated", batch=batch, seed=seed))) == 1


def test_a_rate_that_reaches_what_is_asked_for_and_no_more_is_good() -> None:
    found = {(0.01, True): 90, (0.1, True): 95, (0.01, False): 90, (0.1, False): 89}
    rows = [{"rate": rate, "batch norm": norm, "seed": 0, "accuracy": each} for (rate, norm), each in found.items()]
    reached = "With batch norm 90 % are reached at rates from 0.01 to 0.1, and without it at rates from 0.01 to 0.01. "
    assert rates.claim(rows).sentence.startswith(reached)
