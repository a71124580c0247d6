# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models of one batch norm beside a layer, and what folding is to make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from comparing import Array, peer

onnx = peer("onnx")
node = onnx.helper.make_node
KINDS = {
    np.dtype(np.float16): onnx.TensorProto.FLOAT16,
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.float64): onnx.TensorProto.DOUBLE,
}


@dataclass
class Case:
    """A model, the operators that are left of it, and a part of the reason of each batch norm that is."""

    model: Any
    operators: str
    reasons: Sequence[str] = ()


def norm(x: str, y: str, prefix: str = "", **told: Any) -> Any:
    outputs = told.pop("outputs", [y])
    return node("BatchNormalization", [x, *(prefix + name for name in "gbmv")], outputs, name=f"norm{prefix}", **told)


class Maker:
    """Draws numbers."""

    def __init__(self, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.rng, self.dtype = rng, np.dtype(dtype)

    def w(self, *shape: int) -> Array:
        return np.asarray(self.rng.normal(size=shape), self.dtype)

    def ws(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        return {name: self.w(*shape) for name, shape in shapes.items()}

    def params(self, channels: int, prefix: str = "", shift: bool = True) -> dict[str, Array]:
        """The parameters of a batch norm; without a shift mean and beta are 0."""
        numbers = {
            "g": self.rng.uniform(0.5, 1.5, channels) * self.rng.choice([-1, 1], channels),
            "b": self.rng.normal(size=channels) * shift,
            "m": self.rng.normal(size=channels) * shift,
            "v": self.rng.uniform(0.3, 3, channels),
        }
        return {prefix + name: values.astype(self.dtype) for name, values in numbers.items()}

    def model(
        self,
        nodes: Sequence[Any],
        arrays: dict[str, Array],
        shape: Sequence[Any] | None,
        *,
        outputs: Sequence[str] = ("y",),
        opset: int = 17,
        ir: int = 8,
        overridden: Sequence[str] = (),
        inputs: Sequence[Any] = (),
        functions: Sequence[Any] = (),
        imports: Sequence[Any] = (),
    ) -> Any:
        kind = KINDS[self.dtype]
        tensors = [onnx.numpy_helper.from_array(values, name) for name, values in arrays.items()]
        if ir < 4:
            overridden = list(arrays)
        given = [onnx.helper.make_tensor_value_info("x", kind, shape), *inputs]
        given += [
            onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors if t.name in overridden
        ]
        made = [onnx.helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = onnx.helper.make_graph(list(nodes), "graph", given, made, tensors)
        opsets = [onnx.helper.make_opsetid("", opset), *imports]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=functions)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        for output, told in zip(model.graph.output, inferred):
            if told.type.tensor_type.HasField("shape"):
                output.CopyFrom(told)
            else:
                like = arrays[output.name].shape if output.name in arrays else shape
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, like))
        onnx.checker.check_model(model)
        return model


X = [2, 4, 9, 9]
BEFORE, AFTER = norm("x", "c"), norm("c", "y")
CASES: dict[str, Callable[[Maker], Case]] = {}


def case(function: Callable[[Maker], Case]) -> Callable[[Maker], Case]:
    CASES[function.__name__] = function
    return function


def simple(
    left: str, nodes: list[Any], shapes: dict[str, Any], channels: int, x: Any = X, *reasons: str
) -> Callable[[Maker], Case]:
    return lambda m: Case(m.model(nodes, {**m.ws(shapes), **m.params(channels)}, x), left, reasons)


# One batch norm beside other layers: what is left, the nodes, the shapes of the layers' arrays, the channels, and
# unless they are X and nothing, the shape of x and a part of the reason why the batch norm is left.
SIMPLE: dict[str, Any] = {
    "conv": ("Conv", [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), AFTER], {"w": (6, 4, 3, 3)}, 6),
    "conv_with_bias_and_groups": ("Conv",
        [node("Conv", ["x", "w", "a"], ["c"], group=2), AFTER], {"w": (6, 2, 3, 3), "a": (6,)}, 6),
    "depthwise": ("Conv",
        [node("Conv", ["x", "w"], ["c"], group=4), norm("c", "y", epsilon=0.1)], {"w": (8, 1, 3, 3)}, 8),
    "conv_1d": ("Conv", [node("Conv", ["x", "w"], ["c"]), AFTER], {"w": (6, 4, 3)}, 6, [2, 4, 9]),
    "conv_3d": ("Conv",
        [node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER"), AFTER], {"w": (3, 2, 3, 3, 3)}, 3, [2, 2, 5, 5, 5]),
    "conv_transpose": ("ConvTranspose",
        [node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2]), AFTER], {"w": (4, 6, 3, 3)}, 6),
    "conv_transpose_with_groups": ("ConvTranspose",
        [node("ConvTranspose", ["x", "w", "a"], ["c"], group=2, output_shape=[10, 10]), AFTER],
        {"w": (4, 3, 3, 3), "a": (6,)}, 6),
    "gemm": ("Gemm", [node("Gemm", ["x", "w", "a"], ["c"], transB=1), AFTER], {"w": (6, 4), "a": (6,)}, 6, [3, 4]),
    "gemm_scaled_and_transposed": ("Gemm",
        [node("Gemm", ["x", "w", "a"], ["c"], alpha=0.5, beta=3.0, transA=1), AFTER],
        {"w": (4, 6), "a": (1, 6)}, 6, [4, 3]),
    "gemm_without_bias": ("Gemm", [node("Gemm", ["x", "w"], ["c"]), AFTER], {"w": (4, 6)}, 6, ["batch", 4]),
    "gemm_with_one_number_for_bias": ("Gemm",
        [node("Gemm", ["x", "w", "a"], ["c"], beta=2.0), AFTER], {"w": (4, 6), "a": ()}, 6, [3, 4]),
    "gemm_with_bias_per_row": ("Gemm BN",
        [node("Gemm", ["x", "w", "a"], ["c"]), AFTER],
        {"w": (4, 6), "a": (3, 1)}, 6, [3, 4], "the bias of Gemm 'c' has shape (3, 1)"),
    "dense_of_keras": ("MatMul Add",
        [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "a"], ["c"]), AFTER],
        {"w": (4, 6), "a": (6,)}, 6, ["batch", 4]),
    "matmul_alone": ("MatMul Add", [node("MatMul", ["x", "w"], ["c"]), AFTER], {"w": (4, 6)}, 6, [3, 4]),
    "matmul_over_the_last_of_three_axes": ("MatMul BN",
        [node("MatMul", ["x", "w"], ["c"]), AFTER],
        {"w": (4, 6)}, 6, [2, 6, 4], "has its channels at axis 2 of 3, and the batch norm elsewhere"),
    "before_conv": ("Conv", [BEFORE, node("Conv", ["c", "w"], ["y"], group=2)], {"w": (6, 2, 3, 3)}, 4),
    "before_padded_conv": ("BN Conv",
        [BEFORE, node("Conv", ["c", "w"], ["y"], pads=[0, 0, 1, 0])], {"w": (6, 4, 3, 3)}, 4, X, "pads with zeros"),
    "before_conv_padded_by_same": ("BN Conv",
        [BEFORE, node("Conv", ["c", "w"], ["y"], auto_pad="SAME_LOWER")], {"w": (6, 4, 1, 3)}, 4, X, "pads with zeros"),
    "before_conv_that_same_does_not_pad": ("Conv",
        [BEFORE, node("Conv", ["c", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], {"w": (6, 4, 1, 1)}, 4),
    "before_conv_transpose": ("BN ConvTranspose",
        [BEFORE, node("ConvTranspose", ["c", "w"], ["y"])], {"w": (4, 6, 3, 3)}, 4, X, "taps of their own"),
    "before_cropped_conv_transpose": ("ConvTranspose",
        [BEFORE, node("ConvTranspose", ["c", "w"], ["y"], pads=[2, 2, 3, 2], group=2)], {"w": (4, 3, 3, 3)}, 4),
    "before_conv_transpose_cropped_at_one_end": ("BN ConvTranspose",
        [BEFORE, node("ConvTranspose", ["c", "w"], ["y"], pads=[2, 2, 1, 2])],
        {"w": (4, 6, 3, 3)}, 4, X, "taps of their own"),
    "before_conv_transpose_of_some_shape": ("BN ConvTranspose",
        [BEFORE, node("ConvTranspose", ["c", "w"], ["y"], output_shape=[9, 9])],
        {"w": (4, 6, 1, 1)}, 4, X, "depends on the shape of x"),
    "before_gemm": ("Gemm",
        [BEFORE, node("Gemm", ["c", "w", "a"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        {"w": (6, 4), "a": (6,)}, 4, [3, 4]),
    "before_transposed_gemm": ("BN Gemm",
        [BEFORE, node("Gemm", ["c", "w"], ["y"], transA=1)], {"w": (3, 6)}, 4, [3, 4], "transA=1"),
    "as_the_weight_of_a_gemm": ("BN Gemm",
        [BEFORE, node("Gemm", ["w", "c"], ["y"])], {"w": (6, 3)}, 4, [3, 4], "as its weight"),
    "before_matmul": ("MatMul Add", [BEFORE, node("MatMul", ["c", "w"], ["y"])], {"w": (4, 6)}, 4, [3, 4]),
    "before_dense_of_keras": ("MatMul Add",
        [BEFORE, node("MatMul", ["c", "w"], ["p"]), node("Add", ["a", "p"], ["y"])],
        {"w": (4, 6), "a": (6,)}, 4, [3, 4]),
    "before_matmul_of_three_axes": ("BN MatMul",
        [BEFORE, node("MatMul", ["c", "w"], ["y"])], {"w": (5, 6)}, 4, [3, 4, 5], "x has 3 axes"),
    "before_flattened_gemm": ("Flatten Gemm",
        [BEFORE, node("Dropout", ["c"], ["d"]), node("Flatten", ["d"], ["f"]), node("Gemm", ["f", "w"], ["y"])],
        {"w": (36, 6)}, 4, [2, 4, 3, 3]),
    "before_a_flattening_of_other_axes": ("BN Flatten Gemm",
        [BEFORE, node("Flatten", ["c"], ["f"], axis=2), node("Gemm", ["f", "w"], ["y"])],
        {"w": (9, 6)}, 4, [2, 4, 3, 3], "may mix up channels"),
    "scale_of_caffe": ("BN",
        [BEFORE, node("Mul", ["c", "s"], ["d"]), node("Add", ["t", "d"], ["y"])],
        {"s": (1, 4, 1, 1), "t": (4, 1, 1)}, 4, X, "no layer is beside it"),
    "scale_along_another_axis": ("Conv Mul",
        [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])],
        {"w": (7, 4, 3, 3), "s": (7,)}, 7),
    "scale_that_broadcasts_channels": ("Conv Mul",
        [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])],
        {"w": (1, 4, 3, 3), "s": (1, 5, 1, 1)}, 1),
    "scale_that_adds_an_axis": ("Conv Mul",
        [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])],
        {"w": (6, 4, 3, 3), "s": (1, 1, 1, 1, 1)}, 6),
    "a_constant_divided_by_it": ("Conv Div BN",
        [node("Conv", ["x", "w"], ["k"]), node("Div", ["s", "k"], ["c"]), AFTER],
        {"w": (6, 4, 3, 3), "s": (1, 6, 1, 1)}, 6, X, "after Div 'c'"),
    "conv_used_twice": ("Conv BN Add",
        [node("Conv", ["x", "w"], ["c"]), norm("c", "d"), node("Add", ["c", "d"], ["y"])],
        {"w": (6, 4, 3, 3)}, 6, X, "the output of Conv 'c' is used elsewhere as well"),
    "weight_of_two_convs": ("Conv Conv",
        [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), norm("c", "d"), node("Conv", ["d", "w"], ["y"])],
        {"w": (4, 4, 3, 3)}, 4),
    "weight_that_is_computed": ("Relu Conv BN",
        [node("Relu", ["u"], ["w"]), node("Conv", ["x", "w"], ["c"]), AFTER],
        {"u": (6, 4, 3, 3)}, 6, X, "'w' is computed by Relu"),
    "in_training": ("Conv BN",
        [node("Conv", ["x", "w"], ["c"]), norm("c", "y", training_mode=1, outputs=["y", "m2", "v2"])],
        {"w": (6, 4, 3, 3)}, 6, X, "training_mode=1"),
}  # fmt: skip
CASES.update({name: simple(*row) for name, row in SIMPLE.items()})


def operators(model: Any) -> str:
    return " ".join(each.op_type for each in model.graph.node).replace("BatchNormalization", "BN")
