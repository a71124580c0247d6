# SPDX-License-Identifier: Apache-2.0
"""The life of one layer: random steps of training and evaluation, with all that may happen to a layer in between.

After each step its outputs are what the oracle of the package's tests makes of its own state, and its state is where
its twin's is.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import batchnorm as bn
import numpy as np
import oracle
from calls import (
    ACTIVATIONS,
    DTYPES,
    LAYOUTS,
    Given,
    activation_of,
    check_gradients,
    check_running,
    check_y,
    draw,
    gradient,
    source_of,
)
from oracle import Call, Real

from events import EVENTS, aside, refused
from twin import CENTRES, STATE, Twin

Array = np.ndarray[Any, Any]

MOST_STEPS, ELEMENTS = 100, 1 << 16
RATE = 0.05
RESULTS = "y", "dx", "dgamma", "dbeta", "dz"
MARGINS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # about a kink, as those of gradient()


def some_groups(rng: np.random.Generator, n: int) -> Any:
    """None as often as each kind; the index is drawn anew for each batch."""
    count, size = int(rng.integers(1, 5)), int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
    return [
        None,
        bn.Ghost(size, bool(rng.integers(2)), bool(rng.integers(2))),
        bn.Segments(rng.integers(0, count, n), count),
        bn.Split(n // size, bool(rng.integers(2))),
        bn.Conditional(rng.integers(0, count, n), count),
    ][rng.integers(5)]


class Life:
    """A layer, its twin, and what they are told in every step."""

    steps = 0  # of all lives
    most = 0.0  # the largest difference of all, as a part of what it may be

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.digest, self.is_sure = rng, hashlib.blake2b(digest_size=16), True
        n, c = int(rng.integers(1, 13)), int(rng.choice([1, 2, 3, 16, 17, 33]))
        self.shape = n, c, int(rng.choice([1, 7, 49, 100]))
        self.dtype = str(rng.choice(list(DTYPES)))
        self.layout = str(rng.choice(list(LAYOUTS)))
        self.groups = some_groups(rng, n)
        told: dict[str, Any] = {
            "activation": ACTIVATIONS[rng.integers(len(ACTIVATIONS))],
            "residual": True if rng.integers(2) else None,
            "weights": True if rng.integers(2) else None,
            "masked": str(rng.choice(["normalize", "zero", "keep"])),
            "average": str(rng.choice(["exponential", "cumulative", "windowed", "debiased", "filled"])),
            "single_value": str(rng.choice(["running", "beta"])),
            "nonfinite": "skip",
            "source": [("batch",), ("blend", 2.5), ("renorm", 1.5, 0.5, 0.75), ("updated",)][rng.integers(4)],
            "unbiased": bool(rng.integers(2)),
            "momentum": float(rng.choice([0.01, 0.1, 0.25, 1])),
            "eps": float(rng.choice([1e-3, 0.125])),
        }
        if told["source"] != ("batch",):
            # Left out: a single value that becomes beta under another source, and y where nothing counts there.
            told["single_value"] = "running"
            told["masked"] = "zero" if told["masked"] == "normalize" and told["weights"] else told["masked"]
        self.told, self.decay = told, float(rng.integers(2))
        self.counts_alike = told["average"] == "cumulative" and bool(rng.integers(2))
        self.first = draw(rng, self.shape, self.dtype, self.groups, **told)
        given = Given(self.first, self.dtype, self.layout)
        self.axis, self.kind, self.param = given.axis, given.dtype, given.param
        self.twin = Twin(self.first, self.kind, self.param)
        self.layer = self.made()
        for name in STATE:
            getattr(self.layer, name)[...] = getattr(self.first, name).reshape(getattr(self.layer, name).shape)

    def __repr__(self) -> str:
        return f"{self.shape} {self.dtype} {self.layout} {self.groups} {self.told} decay {self.decay:g}"

    def made(self) -> bn.BatchNorm:
        """A layer as this one was at first."""
        call = self.first
        return bn.BatchNorm(
            self.shape[1],
            eps=call.eps,
            momentum=None if self.counts_alike else call.momentum,
            dtype=self.kind,
            axis=self.axis,
            unbiased=call.unbiased,
            activation=activation_of(call.activation) if call.activation != ("identity",) else None,
            running=bn.Running(call.average, call.single_value, "skip"),
            source=None if call.source == ("batch",) else source_of(call.source),
            groups=self.groups,
        )

    def live(self) -> str:
        affordable = min(MOST_STEPS, 1 + ELEMENTS // int(np.prod(self.shape)))
        for _ in range(int(self.rng.integers(1, 2 + affordable))):
            self.step()
            if not self.is_sure:
                break
        return self.digest.hexdigest()

    def step(self) -> None:
        Life.steps += 1
        event = EVENTS[self.rng.integers(len(EVENTS))]
        if event is not None:
            before = self.seen()
            event(self)
            self.is_same(before, event.__name__)
        batch = draw(self.rng, self.shape, self.dtype, self.new_groups(), **self.told)
        if batch.weights is not None:
            # A sum of at most 1 is no population to estimate a variance of.
            batch.weights = np.where(batch.weights == 0.5, 1.5, batch.weights)
        news = {name: getattr(batch, name) for name in ("x", "residual", "weights", "of_sample")}
        frozen = self.rng.integers(6) == 0
        self.twin.call = replace(self.twin.call, frozen=frozen, **news)
        if self.rng.integers(8) == 0:
            aside(lambda: self.train(frozen))
        else:
            self.train(frozen)

    def new_groups(self) -> Any:
        if isinstance(self.groups, (bn.Segments, bn.Conditional)):
            index = self.rng.integers(0, self.groups.groups, self.shape[0])
            self.layer.groups = type(self.groups)(index, self.groups.groups)
            return self.layer.groups
        return self.groups

    def own_call(self) -> Call:
        """The batch beside the layer's own state."""
        state = {name: getattr(self.layer, name).astype(Real).reshape(-1, self.shape[1]) for name in STATE}
        counts = np.atleast_1d(np.array(self.layer.num_batches_tracked))
        return replace(self.twin.call, num_batches=counts, **state)

    def train(self, frozen: bool) -> None:
        """Forward, backward and a step of the parameters; with the running statistics if frozen."""
        layer, twin = self.layer, self.twin
        given = Given(self.own_call(), self.dtype, self.layout)
        x, told = given.tensor(given.call.x), given.epilogue()
        told.pop("activation", None)
        before, functions = self.seen(), None
        if not frozen and self.rng.integers(4) == 0:
            functions = self.functions(x, told)
        y = layer(x, training=not frozen, **told)
        check_y(given, y)
        if frozen:
            self.is_same(before, "evaluation")
        else:
            check_running(given, layer.running_mean, layer.running_var, layer.num_batches_tracked)
        if self.rng.integers(8) == 0:
            refused(self)
        u = oracle.forward(twin.call).u
        margin = MARGINS.get(self.kind.name, 1e-3) * (1 + abs(u))
        is_far = oracle.distance_to_kinks(u, twin.call.activation) > margin
        dy = np.where(is_far, gradient(self.rng, given), 0)
        dx = layer.backward(given.tensor(dy))
        results = [dx, layer.grad_gamma, layer.grad_beta]
        results += [layer.grad_residual] if given.call.residual is not None else []
        check_gradients(given, dy, results)
        if functions is not None:
            y_too, saved = functions
            for name, one, other in zip(RESULTS, (y, *results), (y_too, *bn.backward(given.tensor(dy), x, saved))):
                assert one.tobytes() == other.tobytes(), f"{name}: other bits from the functions"
        for array in (y, *results):
            self.digest.update(np.ascontiguousarray(array).tobytes())
        self.is_sure = self.descend(dy)
        if not frozen:
            twin.move()
        self.compare()

    def functions(self, x: Array, told: dict[str, Any]) -> tuple[Array, Any]:
        """y and what the gradient needs, of the functions that the layer is made of; the layer's state stays."""
        layer, call = self.layer, self.first
        gamma, beta, mean, var, counts = self.seen()
        policy = bn.Running(call.average, call.single_value, "skip", num_batches=counts)
        of_layer = {"groups": layer.groups, "source": layer.source, "activation": layer.activation}
        of_layer.update(axis=self.axis, eps=call.eps, unbiased=call.unbiased, momentum=call.momentum)
        return bn.forward_training(
            x, gamma, beta, running_mean=mean, running_var=var, running=policy, **of_layer, **told
        )

    def descend(self, dy: Array) -> bool:
        """The layer's parameters in their own type, those of the twin in its."""
        count, kept = self.shape[0] * self.shape[2], 1 - RATE * self.decay
        for name, sums in (("gamma", self.layer.grad_gamma), ("beta", self.layer.grad_beta)):
            array = getattr(self.layer, name)
            away = kept * (array.astype(float) - CENTRES[name])
            array[...] = CENTRES[name] + away - RATE / count * sums.astype(float)
        return self.twin.descend(dy, RATE, self.decay)

    def compare(self) -> None:
        """With the twin."""
        own, twin = self.own_call(), self.twin
        for name in STATE:
            apart, allowed = abs(getattr(own, name) - getattr(twin.call, name)), twin.allowed[name]
            part = np.max(np.where(apart > 0, apart / np.where(allowed > 0, allowed, 1e-300), 0))
            assert part <= 1, (name, getattr(own, name), getattr(twin.call, name), apart / allowed)
            Life.most = max(Life.most, float(part))
        assert np.array_equal(own.num_batches, twin.call.num_batches)
        self.digest.update(b"".join(array.tobytes() for array in self.seen()))

    def seen(self) -> list[Array]:
        return [np.array(getattr(self.layer, name)) for name in (*STATE, "num_batches_tracked")]

    def is_same(self, before: list[Array], what: str) -> None:
        for name, old, new in zip((*STATE, "num_batches_tracked"), before, self.seen()):
            assert old.dtype == new.dtype, (what, name, old.dtype, new.dtype)
            assert np.array_equal(old, new), (what, name, old, new)

    def x_shape(self) -> tuple[int, ...]:
        return Given(self.first, self.dtype, self.layout).tensor(self.first.x).shape
