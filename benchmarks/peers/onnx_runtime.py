# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: a model of one BatchNormalization, with inputs and outputs bound to the buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, ValueInfoProto, helper

from harness.problem import EPS, MOMENTUM, Array, Problem
from harness.system import Caller, Trial
from harness.timing import repeated
from harness.workloads import Operation

OPSET, IR = 15, 10  # both older than the packages: any version of the runtime takes them
PARAMETERS = ("gamma", "beta", "mean", "var")


def model(problem: Problem, training: bool) -> bytes:
    """The operator with every input a graph input. In training it has two more outputs."""
    element = {4: TensorProto.FLOAT, 8: TensorProto.DOUBLE}[problem.dtype.itemsize]
    new = ["new_mean", "new_var"] if training else []
    shapes = {"x": problem.shape, "y": problem.shape, **dict.fromkeys((*PARAMETERS, *new), (problem.workload.c,))}

    def value(name: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, element, shapes[name])

    attributes: dict[str, Any] = {"epsilon": EPS, "momentum": 1 - MOMENTUM, "training_mode": int(training)}
    node = helper.make_node("BatchNormalization", ["x", *PARAMETERS], ["y", *new], **attributes)
    graph = helper.make_graph([node], "layer", [value(n) for n in ("x", *PARAMETERS)], [value(n) for n in ("y", *new)])
    opset = [helper.make_opsetid("", OPSET)]
    serialized: bytes = helper.make_model(graph, opset_imports=opset, ir_version=IR).SerializeToString()
    return serialized


class OnnxRuntime:
    """BatchNormalization, which is channels-first by definition; gradients are not in the package."""

    name = "onnxruntime"
    version = str(ort.__version__)
    caller: Caller = "python"
    composed = False

    def __init__(self, threads: int) -> None:
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3

    def prepare(self, problem: Problem, operation: Operation) -> Trial | None:
        p, training = problem, operation == "training"
        if operation == "backward" or p.layout == "NHWC" or (training and p.dtype != np.float32):
            return None
        session = ort.InferenceSession(model(p, training), self.options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        inputs = {"x": p.x, "gamma": p.gamma, "beta": p.beta, "mean": p.running_mean, "var": p.running_var}
        outputs = {"y": p.y}
        if training:
            outputs |= {"new_mean": np.empty_like(p.gamma), "new_var": np.empty_like(p.gamma)}

        def place(name: str, array: Array) -> tuple[object, ...]:
            shape = p.shape if name in "xy" else array.shape
            return (name, "cpu", 0, p.dtype.type, shape, array.ctypes.data)

        for name, array in inputs.items():
            binding.bind_input(*place(name, array))
        for name, array in outputs.items():
            binding.bind_output(*place(name, array))

        def call() -> object:
            return session.run_with_iobinding(binding)

        def result() -> Array:
            return outputs["y"]  # and so the outputs live as long as the trial

        return Trial(repeated(call), result)
