# SPDX-License-Identifier: Apache-2.0
"""ONNX models run, as they are written: without fusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from comparing import Array, peer

onnx = peer("onnx")
runtime = peer("onnxruntime")


def drawn(rng: np.random.Generator, model: Any, **lengths: int) -> dict[str, Array]:
    """Random inputs; a length that the model leaves open is 3."""
    constants = {each.name for each in model.graph.initializer}
    given = {}
    for each in model.graph.input:
        if each.name in constants:
            continue
        told = each.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(told.elem_type)
        shape = [axis.dim_value or lengths.get(axis.dim_param, 3) for axis in told.shape.dim]
        values = rng.normal(size=shape) if dtype.kind not in "ib" else rng.integers(0, 2, size=shape)
        given[each.name] = np.asarray(values, dtype)
    return given


def run(model: Any, given: Mapping[str, Array]) -> list[Array]:
    """Runs a model in ONNX Runtime."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, dict(given))]


def run_by_reference(model: Any, given: Mapping[str, Array]) -> list[Array]:
    """Runs a model in the reference of onnx, which knows old operators and bfloat16."""
    reference = peer("onnx.reference")
    return [np.asarray(each) for each in reference.ReferenceEvaluator(model).run(None, dict(given))]


def near_enough(expected: list[Array], found: list[Array], units: float = 32) -> None:
    """Within some units of the last place of the largest value: sums are in another order and rounded elsewhere."""
    assert len(expected) == len(found)
    for a, b in zip(expected, found):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.isfinite(a.astype(np.float64)).all()
        size = abs(a.astype(np.float64)).max()
        assert size > 0
        bound = units * float(onnx_eps(a.dtype)) * size
        assert abs(a.astype(np.float64) - b.astype(np.float64)).max() <= bound


def onnx_eps(dtype: np.dtype[Any]) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)
