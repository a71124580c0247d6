# SPDX-License-Identifier: Apache-2.0
"""Layers to be recalibrated, and what has to be as it was afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
KEPT = ("training", "grad_gamma", "grad_beta", "grad_residual", "_last")


def drawn(layer: Any, rng: np.random.Generator) -> Any:
    """The layer with random parameters and statistics."""
    for array in (layer.gamma, layer.beta, layer.running_mean):
        if array is not None:
            array[...] = rng.normal(size=array.shape)
    layer.running_var[...] = rng.uniform(0.5, 2, layer.running_var.shape)
    layer.num_batches_tracked = layer.num_batches_tracked + 7
    return layer


class Snapshot:
    """All that recalibrate() has to leave as it is, of a layer that has been called."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.state = layer, layer.state_dict()
        self.addresses = {key: id(getattr(layer, key)) for key in ("running_mean", "running_var", "gamma", "beta")}
        self.kept = {name: getattr(layer, name) for name in KEPT}
        self.described, self.text = layer._is_described, repr(layer)

    def check(self, recalibrated: bool = False) -> None:
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        for key, value in self.layer.state_dict().items():
            if not (recalibrated and key in statistics):
                assert np.array_equal(value, self.state[key]), key
        for key, address in self.addresses.items():
            assert id(getattr(self.layer, key)) == address, key
        for name, value in self.kept.items():
            assert getattr(self.layer, name) is value, name
        assert self.layer._observer is None
        assert self.layer._is_described is self.described
        assert repr(self.layer) == self.text


def moments(parts: list[Array], axis: int, unbiased: bool) -> tuple[Array, Array]:
    """The statistics of all values of the parts, in float64."""
    values = np.concatenate([np.moveaxis(np.asarray(p, float), axis, 0).reshape(p.shape[axis], -1) for p in parts], 1)
    return values.mean(1), values.var(1, ddof=int(unbiased))
