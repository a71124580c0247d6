# SPDX-License-Identifier: Apache-2.0
"""Weights, groups, averages and sources, which no layer of PyTorch has, against formulas that it differentiates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import CASES, DTYPES, Array, Batch, near, wide
from formulas import Formula, moments
from in_torch import array, exact, torch

import batchnorm as bn

Generator = np.random.Generator


class Comparison:
    """A call of ours beside the formula, on a random batch; what it is told comes by the methods' names."""

    def __init__(self, rng: Generator, dtype: str, axis: str = "any", **told: Any) -> None:
        self.rng, self.batch = rng, Batch(rng, dtype, axis)
        self.told: dict[str, Any] = {"unbiased": bool(rng.random() < 0.5)}
        self.formula_told: dict[str, Any] = dict(self.told)
        self.rows = {"parameters": 0, "running": 0}
        self.average, self.seen = "exponential", 0
        self.residual: Any = None

    def weighted(self) -> Comparison:
        shape = tuple(1 if a == self.batch.axis else n for a, n in enumerate(self.batch.shape))
        if self.rng.random() < 0.5:
            weights: Any = self.rng.random(shape) < 0.6
        else:
            weights = self.rng.choice([0, 0.5, 1, 2, 3.25], shape)
        weights[(slice(None), *[0] * (len(shape) - 1))] = 2  # more than one value, in groups of two samples, too
        masked = str(self.rng.choice(["normalize", "zero", "keep"]))
        print(f"weights {weights.dtype}, masked {masked}")
        self.told.update(weights=weights, masked=masked)
        self.formula_told.update(weights=exact(self.planes(weights)[:, 0]), masked=masked)
        return self

    def averaged(self) -> Comparison:
        self.average = str(self.rng.choice(["exponential", "cumulative", "windowed", "debiased", "filled"]))
        self.seen = int(self.rng.integers(0, 4))
        print(f"average {self.average}, {self.seen} batches before")
        self.formula_told.update(average=self.average)
        return self

    def sourced(self, kind: str) -> Comparison:
        rng = self.rng
        limits = dict(zip(("r_max", "d_max", "r_min"), rng.uniform([1, 0, 0], [2, 2, 1]).tolist()))
        pseudo_count = float(rng.uniform(0, 20))
        ours = {"blend": bn.Blend(pseudo_count), "renorm": bn.Renorm(**limits), "updated": bn.Updated()}[kind]
        print(ours)
        self.told["source"] = ours
        self.formula_told["source"] = (kind, *{"blend": [pseudo_count], "renorm": limits.values()}.get(kind, []))
        return self

    def grouped(self, kind: str) -> Comparison:
        samples = self.batch.shape[0]
        # Nobody is alone, and the last of four groups has no samples.
        pairs = self.rng.integers(0, 3, samples // 2)
        index = self.rng.permutation(np.concatenate([pairs, pairs, pairs[: samples % 2]]))
        divisors = [n for n in range(2, samples + 1) if samples % n == 0]
        size = int(self.rng.choice(divisors))
        interleaved, averaged, shared = (bool(each) for each in self.rng.integers(0, 2, 3))
        order, count = np.arange(samples), samples // size
        ours: Any
        if kind == "ghost":
            ours, of_sample = bn.Ghost(size, interleaved, averaged), order % count if interleaved else order // size
            self.formula_told["averaged"] = averaged
        elif kind == "split":
            ours, of_sample = bn.Split(count, shared), order // size
            self.rows = {"parameters": 0 if shared else count, "running": count}
        elif kind == "segments":
            ours, of_sample = bn.Segments(index, 4), index
            self.rows = {"parameters": 4, "running": 4}
        else:
            ours, of_sample = bn.Conditional(index, 4), index
            self.formula_told["has_statistics"] = False
            self.rows["parameters"] = 4
        print(ours)
        self.told["groups"] = ours
        self.formula_told.update(of_sample=of_sample)
        self.formula_told.update({f"has_{name}": rows > 0 for name, rows in self.rows.items()})
        return self

    def followed(self) -> Comparison:
        """Adds a residual, and an activation whose slope does not jump."""
        residual = self.rng.normal(size=self.batch.shape).astype(self.batch.dtype)
        self.told.update(activation="silu", residual=residual)
        self.residual = exact(self.planes(residual), gradient=True)
        self.formula_told.update(activation=torch.nn.functional.silu, residual=self.residual)
        return self

    def planes(self, values: Array) -> Array:
        """Values in any layout, as (N, C, L)."""
        moved = np.moveaxis(values, self.batch.axis, 1)
        return moved.reshape(*moved.shape[:2], -1)

    def parameters(self) -> dict[str, Any]:
        """With rows where there is one per group."""
        batch, rng, made = self.batch, self.rng, {}
        for name, value in batch.arrays().items():
            rows = self.rows["running" if name.startswith("running") else "parameters"]
            if rows:
                value = (value.astype(float) * rng.uniform(0.7, 1.4, (rows, batch.channels))).astype(batch.param)
            made[name] = value
        return made

    def check(self) -> None:
        batch, given = self.batch, self.parameters()
        old = {name: value.copy() for name, value in given.items()}
        rows = max(1, self.rows["running"])
        counts = np.full(rows, self.seen)
        if self.average != "exponential" or self.seen:
            self.told["running"] = bn.Running(self.average, num_batches=counts)
        y, saved = bn.forward_training(
            batch.x, **given, axis=batch.axis, eps=batch.eps, momentum=batch.momentum, **self.told
        )
        gradients = bn.backward(batch.dy, batch.x, saved, gamma=given["gamma"], axis=batch.axis)

        rows_of = {name: exact(value.reshape(-1, batch.channels), gradient=True) for name, value in old.items()}
        formula = Formula(
            **rows_of, eps=batch.eps, momentum=batch.momentum, counts=[self.seen] * rows, **self.formula_told
        )
        x = exact(self.planes(batch.x), gradient=True)
        expected = formula(x)
        expected.backward(exact(self.planes(batch.dy)))

        size, of_dx, of_sum = self.sizes(old)
        told: dict[str, Any] = {"computed": wide(batch.dtype), "count": batch.count_beside_float64}
        near(self.planes(y), array(expected), size=size, **told)
        near(self.planes(gradients[0]), array(x.grad), size=of_dx, **told)
        if self.residual is not None:
            near(self.planes(gradients[3]), array(self.residual.grad), size=of_dx, **told)
        for ours, name in zip(gradients[1:3], ("gamma", "beta")):
            assert ours.shape == old[name].shape
            near(ours.reshape(-1, batch.channels), array(rows_of[name].grad), size=of_sum, **told)
        for name, theirs in (("running_mean", formula.new_mean), ("running_var", formula.new_var)):
            near(given[name].reshape(-1, batch.channels), array(theirs), size=abs(array(theirs)) + 1, **told)
        if "running" in self.told:
            assert counts.tolist() == formula.counts

    def sizes(self, given: dict[str, Array]) -> tuple[Any, Any, Any]:
        """The sizes of y, dx and the sums, the same for all channels: groups have fewer values than the batch."""
        batch = self.batch
        x = abs(self.planes(batch.x).astype(float))
        gamma, beta, dy = (float(abs(a.astype(float)).max()) for a in (given["gamma"], given["beta"], batch.dy))
        var = min(float(self.least_var().min()), float(given["running_var"].astype(float).min()))
        invstd = 1 / np.sqrt(var + batch.eps)
        hat = (x.max() + 3) * invstd
        return gamma * hat + beta + 4, gamma * invstd * dy * (1 + hat) ** 2, dy * hat * x.shape[0] * x.shape[2]

    def least_var(self) -> Array:
        """The variance of each group and channel."""
        x, of_sample = exact(self.planes(self.batch.x)), self.formula_told.get("of_sample")
        groups = [np.arange(len(x))] if of_sample is None else [np.flatnonzero(of_sample == g) for g in set(of_sample)]
        weights = self.formula_told.get("weights", torch.ones(x.shape[0], x.shape[2]))
        return np.array([array(moments(x[samples], weights[samples][:, None])[2]) for samples in groups])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_weights(rng: Generator, dtype: str, case: int) -> None:
    Comparison(rng, dtype).weighted().check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_averages(rng: Generator, dtype: str, case: int) -> None:
    Comparison(rng, dtype).averaged().check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["blend", "renorm", "updated"])
@pytest.mark.parametrize("case", range(6))
def test_sources(rng: Generator, kind: str, dtype: str, case: int) -> None:
    Comparison(rng, dtype).averaged().sourced(kind).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["ghost", "split", "segments", "conditional"])
@pytest.mark.parametrize("case", range(6))
def test_groups(rng: Generator, kind: str, dtype: str, case: int) -> None:
    Comparison(rng, dtype).grouped(kind).check()


@pytest.mark.parametrize("source", ["blend", "renorm", "updated"])
@pytest.mark.parametrize("groups", ["ghost", "split", "segments", "conditional"])
@pytest.mark.parametrize("case", range(3))
def test_everything_at_once(rng: Generator, groups: str, source: str, case: int) -> None:
    Comparison(rng, "float64").averaged().grouped(groups).sourced(source).weighted().followed().check()


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("case", range(3))
def test_lengths(rng: Generator, axis: int, case: int) -> None:
    """Padded sequences: PyTorch takes them packed, as a batch of one position each."""
    batch = Batch(rng, "float64", "first" if axis == 1 else "last", ranks=(3,))
    lengths = rng.integers(0, batch.shape[3 - axis] + 1, len(batch.x))
    lengths[:2] = batch.shape[3 - axis]
    given = batch.arrays()
    told: dict[str, Any] = {"axis": axis, "eps": batch.eps, "momentum": batch.momentum}
    y, saved = bn.forward_training(batch.x, **given, lengths=lengths, masked="zero", **told)
    dx, dgamma, dbeta = bn.backward(batch.dy, batch.x, saved, gamma=batch.gamma, axis=axis)

    def packed(values: Array) -> Array:
        last = np.moveaxis(values, axis, 2)
        return np.concatenate([sample[:length] for sample, length in zip(last, lengths)])

    x, gamma, beta = (exact(a, gradient=True) for a in (packed(batch.x), batch.gamma, batch.beta))
    running = [exact(a) for a in (batch.running_mean, batch.running_var)]
    expected = torch.nn.functional.batch_norm(x, *running, gamma, beta, True, batch.momentum, batch.eps)
    expected.backward(exact(packed(batch.dy)))
    size = 1e3 / batch.eps
    for ours, theirs in ((packed(y), expected), (packed(dx), x.grad), (dgamma, gamma.grad), (dbeta, beta.grad)):
        near(ours, array(theirs), np.float64, size)
    for name, theirs in zip(("running_mean", "running_var"), running):
        near(given[name], array(theirs), np.float64, size)
    assert np.count_nonzero(y) <= lengths.sum() * batch.channels
    assert np.count_nonzero(dx) <= lengths.sum() * batch.channels


@pytest.mark.parametrize("dtype", DTYPES)
def test_micro_batches(rng: Generator, dtype: str) -> None:
    """A batch in parts, with the gradients of the whole."""
    batch = Batch(rng, dtype)
    x, gamma, beta = (exact(a, gradient=True) for a in (batch.x, batch.gamma, batch.beta))
    y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, eps=batch.eps)
    y.backward(exact(batch.dy))
    cuts = sorted(rng.integers(0, len(batch.x), 2).tolist())
    parts, gradients = np.split(batch.x, cuts), np.split(batch.dy, cuts)
    whole = bn.MicroBatches(eps=batch.eps)
    for part in parts:
        whole.add(part)
    for dy, part in zip(gradients, parts):
        whole.add_gradient(dy, part)
    sizes = batch.sizes()
    told: dict[str, Any] = {"computed": wide(batch.dtype), "count": batch.count_beside_float64}
    ours = np.concatenate([whole.normalize(part, batch.gamma, batch.beta) for part in parts])
    near(ours, array(y), size=sizes.y, **told)
    dx = np.concatenate([whole.apply_gradient(dy, part, batch.gamma) for dy, part in zip(gradients, parts)])
    near(dx, array(x.grad), size=sizes.dx, **told)
    near(whole.dgamma, array(gamma.grad), np.float64, sizes.dgamma, batch.count)
    near(whole.dbeta, array(beta.grad), np.float64, sizes.dbeta, batch.count)
