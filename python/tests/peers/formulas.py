# SPDX-License-Identifier: Apache-2.0
"""Batch normalization with all that a call may be told, written down in PyTorch, whose autograd has the gradients.

Tensors are (N, C, L) of float64 and weights (N, L). Where a method says that something is a constant to the gradient,
it is detached. An array with a row per group is (groups, C), with one row if all groups share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from in_torch import exact, torch


def moments(x: Any, w: Any) -> tuple[Any, Any, Any]:
    """Sum of the weights, mean and biased variance per channel."""
    total, counted = w.sum(), torch.where(w > 0, x, torch.zeros_like(x))
    mean = (w * counted).sum((0, 2)) / total
    return total, mean, (w * (counted - mean[:, None]) ** 2).sum((0, 2)) / total


@dataclass
class Formula:
    """The arguments of a call; it writes new_mean, new_var and counts."""

    gamma: Any
    beta: Any
    running_mean: Any
    running_var: Any
    eps: float
    momentum: float
    unbiased: bool = True
    average: str = "exponential"
    source: tuple[Any, ...] = ()
    weights: Any = None
    masked: str = "normalize"
    activation: Any = None
    residual: Any = None
    # The group of each sample, and which arrays have a row for each.
    of_sample: Any = None
    has_statistics: bool = True
    has_running: bool = False
    has_parameters: bool = False
    averaged: bool = False
    counts: list[int] = field(default_factory=lambda: [0])

    def __call__(self, x: Any) -> Any:
        weights = exact(np.ones((x.shape[0], x.shape[2]))) if self.weights is None else self.weights
        self.new_mean, self.new_var, self.before = self.running_mean, self.running_var, [*self.counts]
        found: list[Any] = []
        pieces = torch.zeros_like(x)
        for group, samples in self._samples(x.shape[0]):
            if weights[samples].sum() > 0:
                hats = self._x_hat(x[samples], weights[samples][:, None, :], group if self.has_running else 0, found)
                pieces = pieces.index_put((torch.as_tensor(samples),), hats)
        if self.averaged:
            self._update(0, *(torch.stack([each[i] for each in found]).mean(0) for i in range(2)))
        rows = self.of_sample if self.has_parameters else np.zeros(len(x), int)
        y = self.gamma[rows][:, :, None] * pieces + self.beta[rows][:, :, None]
        y = y if self.residual is None else y + self.residual
        y = y if self.activation is None else self.activation(y)
        if self.masked == "normalize":
            return y
        return torch.where(weights[:, None, :] > 0, y, x if self.masked == "keep" else torch.zeros_like(x))

    def _samples(self, count: int) -> list[tuple[int, Any]]:
        """The samples that share statistics."""
        if self.of_sample is None or not self.has_statistics:
            return [(0, np.arange(count))]
        return [(group, np.flatnonzero(self.of_sample == group)) for group in sorted(set(self.of_sample))]

    def _x_hat(self, x: Any, w: Any, row: int, found: list[Any]) -> Any:
        """Normalized samples of a group; the running statistics of this row move."""
        total, mean, var = moments(x, w)
        # The old statistics are those before the call, also where an earlier group has moved the new ones.
        old_mean, old_var, first = self.running_mean[row], self.running_var[row], self._weight(self.before[row] + 1)
        kept = total / (total - 1) * var if self.unbiased else var
        found.append((mean, kept))
        if not self.averaged:
            self._update(row, mean, kept)
        r, d = torch.ones_like(mean), torch.zeros_like(mean)
        kind, *numbers = self.source or ("batch",)
        if kind == "blend":
            pseudo = numbers[0]
            mean = (pseudo * old_mean + total * mean) / (pseudo + total)
            var = (pseudo * old_var + total * var) / (pseudo + total)
        elif kind == "updated":
            mean, var = (1 - first) * old_mean + first * mean, (1 - first) * old_var + first * kept
        elif kind == "renorm":
            r_max, d_max, r_min = numbers
            old_std = torch.sqrt(old_var + self.eps)
            r = torch.clamp(torch.sqrt(var + self.eps) / old_std, r_min, r_max).detach()
            d = torch.clamp((mean - old_mean) / old_std, -d_max, d_max).detach()
        hats = (x - mean[:, None]) / torch.sqrt(var + self.eps)[:, None]
        return hats * r[:, None] + d[:, None]

    def _update(self, row: int, mean: Any, var: Any) -> None:
        self.counts[row] += 1
        weight, where = self._weight(self.counts[row]), (torch.tensor([row]),)
        self.new_mean = self.new_mean.index_put(where, ((1 - weight) * self.new_mean[row] + weight * mean)[None])
        self.new_var = self.new_var.index_put(where, ((1 - weight) * self.new_var[row] + weight * var)[None])

    def _weight(self, n: int) -> float:
        """The weight of the n-th batch in the running statistics."""
        m = self.momentum
        return {
            "exponential": m,
            "cumulative": 1 / n,
            "windowed": max(1 / n, m),
            "debiased": m / (1 - (1 - m) ** n),
            "filled": 1 if n == 1 else m,
        }[self.average]
