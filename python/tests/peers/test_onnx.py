# SPDX-License-Identifier: Apache-2.0
"""ONNX: the operator BatchNormalization of opset 15, by its reference and by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Array, Batch, near, peer

import batchnorm as bn

onnx = peer("onnx")
reference = peer("onnx.reference")

INPUTS = ["X", "scale", "B", "input_mean", "input_var"]
OUTPUTS = ["Y", "running_mean", "running_var"]


def model(batch: Batch, training: bool) -> Any:
    """A model of the one operator."""
    outputs = OUTPUTS if training else OUTPUTS[:1]
    told: dict[str, Any] = {"epsilon": batch.eps, "momentum": 1 - batch.momentum, "training_mode": int(training)}
    node = onnx.helper.make_node("BatchNormalization", INPUTS, outputs, **told)

    def value(name: str, dtype: Any, shape: Any) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)

    kinds = [(batch.dtype, batch.shape)] + [(batch.param, (batch.channels,))] * 4
    graph = onnx.helper.make_graph(
        [node],
        "batchnorm",
        [value(name, *kind) for name, kind in zip(INPUTS, kinds)],
        [value(name, *kind) for name, kind in zip(outputs, [kinds[0], kinds[1], kinds[1]])],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def by_reference(made: Any, given: dict[str, Array]) -> list[Array]:
    return [np.asarray(each) for each in reference.ReferenceEvaluator(made).run(None, given)]


def by_runtime(made: Any, given: dict[str, Array]) -> list[Array]:
    runtime = peer("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, given)]


RUNS = {"reference": by_reference, "runtime": by_runtime}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(6))
def test_operator(rng: np.random.Generator, dtype: str, training: bool, run: str, case: int) -> None:
    batch = Batch(rng, dtype)
    # Attributes are of type float, and so is what is computed with them alone.
    batch.eps, batch.momentum = float(np.float32(batch.eps)), float(rng.integers(1, 64)) / 64
    given = batch.arrays()
    theirs = RUNS[run](model(batch, training), dict(zip(INPUTS, [batch.x, *(a.copy() for a in given.values())])))
    sizes = batch.sizes(frozen=not training)
    told: dict[str, Any] = {"computed": dtype, "count": batch.count}
    if not training:
        near(bn.forward_inference(batch.x, **given, eps=batch.eps), theirs[0], size=sizes.y, **told)
        return
    y, _ = bn.forward_training(batch.x, **given, eps=batch.eps, momentum=batch.momentum, unbiased=False)
    near(y, theirs[0], size=sizes.y, **told)
    near(given["running_mean"], theirs[1], size=sizes.mean + 4, **told)
    near(given["running_var"], theirs[2], size=sizes.var + 4, **told)
