# SPDX-License-Identifier: Apache-2.0
"""A layer's parameters and running statistics in NumPy's longest floats, which follow their own gradients and never see
the layer's, and how far the layer's may have come from them.

The bound is carried along, as in twin.h. A step multiplies what there was by what the formulas multiply it by, and adds
what the step itself may lose: the rounding of what is stored, those of a sum's terms and additions, and what comes of
numbers that are off by as much as they may be, to the first order, and up to twice that, as the second is far smaller.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle
from oracle import PARAMETERS, RUNNING, Call, Real, Result

Array = np.ndarray[Any, Any]

STATE = "gamma", "beta", "running_mean", "running_var"
CENTRES = {"gamma": 1.5, "beta": 0.25}


def unit(dtype: np.dtype[Any]) -> float:
    return 2.0**-53 if dtype == np.float64 else 2.0**-24


class Twin:
    """A call of the oracle, of which the state goes on, and what each number of it may be off by."""

    def __init__(self, call: Call, dtype: np.dtype[Any], param: np.dtype[Any]) -> None:
        self.call, self.dtype, self.param = call, dtype, param
        self.allowed = {name: np.zeros(getattr(call, name).shape, Real) for name in STATE}

    def stored(self, value: Array) -> Array:
        """Bounds the error of a number that is computed in double and stored: a rounding, and those of some terms."""
        return 1.001 * unit(self.param) * abs(value) + 2.0**-50 * (abs(value) + 1)

    def doubts(self, found: Result) -> tuple[Array, Array]:
        """Bounds the errors of x_hat and u of each element, made of running statistics and parameters."""
        call, of_x_hat, of_u = self.call, np.zeros_like(self.call.x), np.zeros_like(self.call.x)
        for group, (samples, each) in enumerate(zip(call.groups, found.of_groups)):
            row = group if call.of_sample is not None and call.per_group & RUNNING else 0
            of_mean, of_var = (self.allowed[name][row] for name in STATE[2:])
            invstd, none = oracle.inverse(each.var_used, call.eps), np.zeros_like(of_mean)
            a, b, d = of_mean, invstd**3 * of_var, none
            if not call.frozen and each.outcome != "running":
                if call.source == ("batch",):
                    a, b = none, none
                elif call.source[0] == "renorm":
                    spread = call.running_var[row] + Real(call.eps)
                    b, away = invstd * each.r * of_var / spread, abs(each.mean - call.running_mean[row])
                    a, d = none, (of_mean + away * of_var / spread) / np.sqrt(spread)
            scale = np.broadcast_to(invstd * each.r, invstd.shape)
            for i in samples:
                away = abs(np.where(call.w[i] > 0, call.x[i] - each.mean_used[:, None], 0))
                of_x_hat[i] = (scale * a + d)[:, None] + away * b[:, None]
                gamma, of_gamma, of_beta = (
                    each[call.row(i, PARAMETERS)][:, None]
                    for each in (abs(call.gamma), self.allowed["gamma"], self.allowed["beta"])
                )
                of_u[i] = gamma * of_x_hat[i] + abs(found.x_hat[i]) * of_gamma + of_beta
        return of_x_hat, of_u

    def descend(self, dy: Array, rate: float, decay: float) -> bool:
        """A step of gamma and beta. False if u may be on the other side of a kink than the layer's."""
        call, found = self.call, oracle.forward(self.call)
        _, dgamma, dbeta, dz = oracle.backward(call, dy)
        of_x_hat, of_u = self.doubts(found)
        count = call.x.shape[0] * call.x.shape[2]
        lost = 16 * unit(self.dtype) + count * 2.0**-53
        hats, size = np.where(dz != 0, abs(found.x_hat), 0), abs(dz)
        of_dz = np.zeros_like(of_u)
        if call.activation[0] in ("silu", "hard_swish"):
            of_dz = abs(dy) * (of_u * (curvature(call.activation, found.u) + of_u) + lost * (1 + abs(found.u)))
        terms = {"gamma": size * of_x_hat + of_dz * hats + lost * size * (1 + hats), "beta": of_dz + lost * size}
        step, kept = Real(rate) / count, 1 - Real(rate) * Real(decay)
        moved = {}
        for name, gradient in (("gamma", dgamma), ("beta", dbeta)):
            of_sum = unit(self.param) * abs(gradient)
            for i in range(len(call.x)):
                of_sum[call.row(i, PARAMETERS)] += terms[name][i].sum(axis=1)
            moved[name] = CENTRES[name] + kept * (getattr(call, name) - CENTRES[name]) - step * gradient
            self.allowed[name] = kept * self.allowed[name] + step * of_sum + self.stored(moved[name])
        self.call = replace(call, **moved)
        return bool(np.max(of_u, initial=0) < 1e-4)

    def move(self) -> None:
        """New running statistics. The library's variance of floats is good to 12 bits less than a double, that of
        doubles to as many less as there are bits in the number of values.
        """
        call, has_rows = self.call, self.call.of_sample is not None and self.call.per_group & RUNNING
        counts, now = call.num_batches.copy(), {name: getattr(call, name).copy() for name in STATE[2:]}
        lost = call.x.shape[0] * call.x.shape[2] * 2.0**-53 + (2.0**-47 if self.dtype == np.float64 else 2.0**-40)
        batches = []
        for group, samples in enumerate(call.groups):
            each = oracle.statistics(call, samples, group)
            if each.outcome == "used":
                k = each.w / (each.w - 1) if call.unbiased else Real(1)
                of_both = lost * (1 + abs(each.mean)), k * lost * (1 + each.var + each.mean**2)
                batches.append((group if has_rows else 0, (each.mean, k * each.var), of_both))
        if call.averaged and batches:
            both, of_both = (
                [sum(batch[what][k] for batch in batches) / Real(len(batches)) for k in (0, 1)] for what in (1, 2)
            )
            batches = [(0, both, of_both)]
        for row, both, of_both in batches:
            counts[row] += 1
            m = oracle.weight_of_new(call, int(counts[row]))
            for k, name in enumerate(STATE[2:]):
                now[name][row] = (1 - m) * now[name][row] + m * both[k]
                allowed = (1 - m) * self.allowed[name][row] + m * of_both[k]
                self.allowed[name][row] = allowed + self.stored(now[name][row])
        self.call = replace(call, num_batches=counts, **now)


def curvature(activation: tuple[Any, ...], u: Array) -> Array:
    """The size of the second derivative; no third is above 1."""
    s = 1 / (1 + np.exp(-u))
    return np.full_like(u, 1 / 3) if activation[0] == "hard_swish" else abs(s * (1 - s) * (2 + u * (1 - 2 * s)))
