# SPDX-License-Identifier: Apache-2.0
"""Prints a table of what others leave: `PYTHONPATH=python python python/tests/peers/fold_table.py`.

Each cell is the number of batch norms (and, in brackets, of nodes) that are left of a small model. "wrong" is one that
computes something else, "fails" one that ends in an error. Needs onnxsim, onnxslim and onnxruntime.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from onnx_graphs import CASES
from onnx_making import Case, Maker, operators
from onnx_runs import drawn, onnx, run

from batchnorm.onnx_files import fold_model

ROWS = {
    "conv": "Conv + BN",
    "conv_with_bias_and_groups": "Conv with groups + BN",
    "two_after_a_conv": "Conv + BN + BN",
    "weight_of_two_convs": "Conv + BN, weight shared with another Conv",
    "weight_of_an_operator": "Conv + BN, weights of Constant, Transpose and the like",
    "conv_transpose": "ConvTranspose + BN",
    "conv_transpose_with_groups": "ConvTranspose with groups + BN",
    "gemm": "Gemm + BN",
    "gemm_scaled_and_transposed": "Gemm with alpha, beta and transA + BN",
    "dense_of_keras": "MatMul + Add + BN (the Dense of Keras)",
    "matmul_alone": "MatMul + BN",
    "bias_and_nothing_after_a_conv": "Conv + Add + BN",
    "scale_of_caffe_after_a_conv": "Conv + BN + Mul + Add (the Scale of Caffe)",
    "written_out_alone": "Conv + Sub + Mul, a batch norm written with other operators",
    "scale_of_caffe": "BN + Mul + Add alone",
    "two_alone": "BN + BN alone",
    "before_conv": "BN + Conv without padding",
    "before_two_convs": "BN + two Convs without padding",
    "before_cropped_conv_transpose": "BN + ConvTranspose whose outputs all have all taps",
    "before_gemm": "BN + Gemm",
    "before_flattened_gemm": "BN + Flatten + Gemm",
    "before_dense_of_keras": "BN + MatMul + Add",
    "before_padded_conv": "BN + Conv with zeros padded",
    "before_padded_conv_without_shift": "the same, shift 0",
    "conv_used_twice": "Conv + BN, Conv used elsewhere",
    "conv_put_out": "Conv + BN, Conv is an output",
    "in_training": "Conv + BN in training",
    "weight_that_may_be_overridden": "Conv + BN, weight is an input as well",
}


def ours(model: Any) -> Any:
    fold_model(model)
    return model


def by_onnxsim(model: Any) -> Any:
    import onnxsim

    return onnxsim.simplify(model)[0]


def by_onnxslim(model: Any) -> Any:
    import onnxslim

    return onnxslim.slim(model)


def by_runtime(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


OTHERS = {"batchnorm": ours, "onnxsim": by_onnxsim, "onnxslim": by_onnxslim, "ONNX Runtime": by_runtime}
PACKAGES = {"onnxsim": "onnxsim", "onnxslim": "onnxslim", "ONNX Runtime": "onnxruntime"}


def cell(case: Case, change: Any, rng: np.random.Generator) -> str:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = change(onnx.ModelProto.FromString(case.model.SerializeToString()))
    except Exception:  # of any of them
        return "fails"
    left = operators(found).split()
    text = f"{left.count('BN')} ({len(left)})"
    given = drawn(rng, case.model)
    overridden = [each for each in case.model.graph.input if each.name == "w"]
    if overridden:  # with a value of the caller's own
        given["w"] = rng.normal(size=[each.dim_value for each in overridden[0].type.tensor_type.shape.dim])
        given["w"] = given["w"].astype(np.float32)
    try:
        expected = run(case.model, given)
    except Exception:  # ONNX Runtime has no training
        return text
    try:
        near = all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(expected, run(found, given)))
    except Exception:  # such as that there is no input of this name any more
        near = False
    return text if near else f"{text} wrong"


def main() -> None:
    titles = [f"{name} {version(PACKAGES[name])}" if name in PACKAGES else name for name in OTHERS]
    print("| model | nodes | " + " | ".join(titles) + " |")
    print("|---" * (2 + len(OTHERS)) + "|")
    for name, title in ROWS.items():
        case = CASES[name](Maker(np.random.default_rng(0)))
        cells = [cell(case, change, np.random.default_rng(1)) for change in OTHERS.values()]
        print(f"| {title} | {len(case.model.graph.node)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
