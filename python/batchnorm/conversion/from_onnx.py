# SPDX-License-Identifier: Apache-2.0
"""Batch norms of an ONNX model as states of a layer each, under the names of the operator's inputs."""

from __future__ import annotations

from pathlib import Path

from ..inspection.of_onnx import norms_of_onnx
from ..interop.convention import Convention
from .layers import Arrays, Found


def layers_of_onnx(path: Path, convention: Convention) -> tuple[Arrays, list[Found]]:
    """The batch norms of a model; a ValueError if the numbers of one are not known, or if the framework is not ONNX."""
    if convention.framework != "onnx":
        raise ValueError(f"{path} is a model of ONNX, not of {convention.framework}: tell --from onnx")
    arrays: Arrays = {}
    found = []
    for norm in norms_of_onnx(path):
        if norm.unknown:
            raise ValueError(f"{norm.name}: {norm.unknown}")
        numbers = {"gamma": norm.gamma, "beta": norm.beta, "running_mean": norm.mean, "running_var": norm.var}
        dtypes = dict(zip(numbers, (norm.dtypes[name] for name in ("gamma", "beta", "mean", "var"))))
        state = {
            convention.keys[name]: array.astype(dtypes[name]) for name, array in numbers.items() if array is not None
        }
        mine = {f"{norm.name}/{key}": array for key, array in state.items()}
        if mine.keys() & arrays.keys():
            raise ValueError(f"two batch norms are called {norm.name}")
        arrays.update(mine)
        settings = {"epsilon": norm.eps, "momentum": None if norm.momentum is None else 1 - norm.momentum}
        found.append(Found(norm.name, state, "", settings, frozenset(mine)))
    return arrays, found
