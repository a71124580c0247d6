# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models with batch norms in every place, and what folding is to make of them."""

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
        return self.rng.normal(size=shape).astype(self.dtype)

    def params(self, channels: int, prefix: str = "", shift: bool = True) -> dict[str, Array]:
        """Those of a batch norm; without a shift if mean and beta are 0."""
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
CASES: dict[str, Callable[[Maker], Case]] = {}


def case(function: Callable[[Maker], Case]) -> Callable[[Maker], Case]:
    CASES[function.__name__] = function
    return function


def operators(model: Any) -> str:
    return " ".join(each.op_type for each in model.graph.node).replace("BatchNormalization", "BN")


# After a layer.


@case
def conv(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X), "Conv")


@case
def conv_with_bias_and_groups(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w", "a"], ["c"], group=2), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(6, 2, 3, 3), "a": m.w(6), **m.params(6)}, X), "Conv")


@case
def depthwise(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"], group=4), norm("c", "y", epsilon=0.1)]
    return Case(m.model(nodes, {"w": m.w(8, 1, 3, 3), **m.params(8)}, X), "Conv")


@case
def conv_1d(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3), **m.params(6)}, [2, 4, 9]), "Conv")


@case
def conv_3d(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER"), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(3, 2, 3, 3, 3), **m.params(3)}, [2, 2, 5, 5, 5]), "Conv")


@case
def conv_transpose(m: Maker) -> Case:
    nodes = [node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6, 3, 3), **m.params(6)}, X), "ConvTranspose")


@case
def conv_transpose_with_groups(m: Maker) -> Case:
    nodes = [node("ConvTranspose", ["x", "w", "a"], ["c"], group=2, output_shape=[10, 10]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 3, 3, 3), "a": m.w(6), **m.params(6)}, X), "ConvTranspose")


@case
def gemm(m: Maker) -> Case:
    nodes = [node("Gemm", ["x", "w", "a"], ["c"], transB=1), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(6, 4), "a": m.w(6), **m.params(6)}, [3, 4]), "Gemm")


@case
def gemm_scaled_and_transposed(m: Maker) -> Case:
    nodes = [node("Gemm", ["x", "w", "a"], ["c"], alpha=0.5, beta=3.0, transA=1), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6), "a": m.w(1, 6), **m.params(6)}, [4, 3]), "Gemm")


@case
def gemm_without_bias(m: Maker) -> Case:
    nodes = [node("Gemm", ["x", "w"], ["c"]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6), **m.params(6)}, ["batch", 4]), "Gemm")


@case
def gemm_with_one_number_for_bias(m: Maker) -> Case:
    nodes = [node("Gemm", ["x", "w", "a"], ["c"], beta=2.0), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6), "a": m.w(1)[0], **m.params(6)}, [3, 4]), "Gemm")


@case
def gemm_with_bias_per_row(m: Maker) -> Case:
    nodes = [node("Gemm", ["x", "w", "a"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(4, 6), "a": m.w(3, 1), **m.params(6)}, [3, 4])
    return Case(made, "Gemm BN", ["the bias of Gemm 'c' has shape (3, 1)"])


@case
def dense_of_keras(m: Maker) -> Case:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "a"], ["c"]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6), "a": m.w(6), **m.params(6)}, ["batch", 4]), "MatMul Add")


@case
def matmul_alone(m: Maker) -> Case:
    nodes = [node("MatMul", ["x", "w"], ["c"]), norm("c", "y")]
    return Case(m.model(nodes, {"w": m.w(4, 6), **m.params(6)}, [3, 4]), "MatMul Add")


@case
def matmul_over_the_last_of_three_axes(m: Maker) -> Case:
    nodes = [node("MatMul", ["x", "w"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(4, 6), **m.params(6)}, [2, 6, 4])
    return Case(made, "MatMul BN", ["has its channels at axis 2 of 3, and the batch norm elsewhere"])


@case
def matmul_of_unknown_rank(m: Maker) -> Case:
    nodes = [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["r", "w"], ["c"]), norm("c", "y")]
    shape = onnx.helper.make_tensor_value_info("s", onnx.TensorProto.INT64, ["rank"])
    made = m.model(nodes, {"w": m.w(4, 6), **m.params(6)}, [3, 4], inputs=[shape])
    return Case(made, "Reshape MatMul BN", ["the shape of what goes into MatMul 'c' is not known"])


# Before a layer.


@case
def before_conv(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], group=2)]
    return Case(m.model(nodes, {"w": m.w(6, 2, 3, 3), **m.params(4)}, X), "Conv")


@case
def before_padded_conv(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], pads=[0, 0, 1, 0])]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4)}, X)
    return Case(made, "BN Conv", ["pads with zeros"])


@case
def before_conv_padded_by_same(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], auto_pad="SAME_LOWER")]
    made = m.model(nodes, {"w": m.w(6, 4, 1, 3), **m.params(4)}, X)
    return Case(made, "BN Conv", ["pads with zeros"])


@case
def before_conv_that_same_does_not_pad(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    return Case(m.model(nodes, {"w": m.w(6, 4, 1, 1), **m.params(4)}, X), "Conv")


@case
def before_padded_conv_without_shift(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], pads=[1] * 4)]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4, shift=False)}, X), "Conv")


@case
def before_conv_transpose(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("ConvTranspose", ["c", "w"], ["y"])]
    made = m.model(nodes, {"w": m.w(4, 6, 3, 3), **m.params(4)}, X)
    return Case(made, "BN ConvTranspose", ["taps of their own"])


@case
def before_cropped_conv_transpose(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("ConvTranspose", ["c", "w"], ["y"], pads=[2, 2, 3, 2], group=2)]
    return Case(m.model(nodes, {"w": m.w(4, 3, 3, 3), **m.params(4)}, X), "ConvTranspose")


@case
def before_conv_transpose_cropped_at_one_end(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("ConvTranspose", ["c", "w"], ["y"], pads=[2, 2, 1, 2])]
    made = m.model(nodes, {"w": m.w(4, 6, 3, 3), **m.params(4)}, X)
    return Case(made, "BN ConvTranspose", ["taps of their own"])


@case
def before_conv_transpose_of_some_shape(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("ConvTranspose", ["c", "w"], ["y"], output_shape=[9, 9])]
    made = m.model(nodes, {"w": m.w(4, 6, 1, 1), **m.params(4)}, X)
    return Case(made, "BN ConvTranspose", ["depends on the shape of x"])


@case
def before_gemm(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Gemm", ["c", "w", "a"], ["y"], transB=1, alpha=0.5, beta=2.0)]
    return Case(m.model(nodes, {"w": m.w(6, 4), "a": m.w(6), **m.params(4)}, [3, 4]), "Gemm")


@case
def before_transposed_gemm(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Gemm", ["c", "w"], ["y"], transA=1)]
    made = m.model(nodes, {"w": m.w(3, 6), **m.params(4)}, [3, 4])
    return Case(made, "BN Gemm", ["transA=1"])


@case
def as_the_weight_of_a_gemm(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Gemm", ["w", "c"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(6, 3), **m.params(4)}, [3, 4]), "BN Gemm", ["as its weight"])


@case
def before_matmul(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("MatMul", ["c", "w"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(4, 6), **m.params(4)}, [3, 4]), "MatMul Add")


@case
def before_dense_of_keras(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("MatMul", ["c", "w"], ["p"]), node("Add", ["a", "p"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(4, 6), "a": m.w(6), **m.params(4)}, [3, 4]), "MatMul Add")


@case
def before_matmul_of_three_axes(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("MatMul", ["c", "w"], ["y"])]
    made = m.model(nodes, {"w": m.w(5, 6), **m.params(4)}, [3, 4, 5])
    return Case(made, "BN MatMul", ["x has 3 axes"])


@case
def before_flattened_gemm(m: Maker) -> Case:
    nodes = [
        norm("x", "c"),
        node("Dropout", ["c"], ["d"]),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "w"], ["y"]),
    ]
    return Case(m.model(nodes, {"w": m.w(36, 6), **m.params(4)}, [2, 4, 3, 3]), "Flatten Gemm")


@case
def before_flattened_and_dropped_gemm(m: Maker) -> Case:
    """As in a classifier whose Dropout stands behind the Flatten."""
    nodes = [
        norm("x", "c"),
        node("Flatten", ["c"], ["f"]),
        node("Dropout", ["f"], ["d"]),
        node("Gemm", ["d", "w"], ["y"]),
    ]
    return Case(m.model(nodes, {"w": m.w(36, 6), **m.params(4)}, [2, 4, 3, 3]), "Flatten Dropout Gemm")


@case
def before_flattened_and_transposed_gemm(m: Maker) -> Case:
    """It sums over the samples, of which there are not as many as channels."""
    nodes = [norm("x", "c"), node("Flatten", ["c"], ["f"]), node("Gemm", ["f", "w"], ["y"], transA=1)]
    made = m.model(nodes, {"w": m.w(2, 6), **m.params(4)}, [2, 4, 3, 3])
    return Case(made, "BN Flatten Gemm", ["before Gemm 'y', whose inputs are not 4 channels"])


@case
def before_reshaped_matmul(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Reshape", ["c", "s"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    arrays = {"w": m.w(36, 6), "s": np.array([0, -1]), **m.params(4)}
    return Case(m.model(nodes, arrays, [2, 4, 3, 3]), "Reshape MatMul Add")


@case
def before_a_flattening_of_other_axes(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Flatten", ["c"], ["f"], axis=2), node("Gemm", ["f", "w"], ["y"])]
    made = m.model(nodes, {"w": m.w(9, 6), **m.params(4)}, [2, 4, 3, 3])
    return Case(made, "BN Flatten Gemm", ["may mix up channels"])


@case
def before_two_convs(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"]), node("Conv", ["c", "u"], ["z"], strides=[2, 2])]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(5, 4, 1, 1), **m.params(4)}
    return Case(m.model(nodes, arrays, X, outputs=("y", "z")), "Conv Conv")


@case
def before_two_convs_with_one_weight(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"]), node("Conv", ["c", "w"], ["z"], strides=[2, 2])]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4)}, X, outputs=("y", "z")), "Conv Conv")


@case
def before_a_conv_and_something_else(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"]), node("Relu", ["c"], ["z"])]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4)}, X, outputs=("y", "z"))
    return Case(made, "BN Conv Relu", ["before Relu 'z'"])


# Several in a row.


@case
def two_after_a_conv(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "d"), norm("d", "y", "q")]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6), **m.params(6, "q")}, X), "Conv")


@case
def between_convs(m: Maker) -> Case:
    nodes = [
        norm("x", "b0", "p"),
        node("Conv", ["b0", "w"], ["c"]),
        norm("c", "d"),
        node("Conv", ["d", "u"], ["e"], pads=[1] * 4),
        norm("e", "y", "q"),
    ]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(5, 6, 1, 1), **m.params(4, "p"), **m.params(6), **m.params(5, "q")}
    return Case(m.model(nodes, arrays, X), "Conv Conv")


@case
def two_alone(m: Maker) -> Case:
    nodes = [norm("x", "c"), norm("c", "d", "q"), node("Relu", ["d"], ["y"])]
    made = m.model(nodes, {**m.params(4), **m.params(4, "q")}, X)
    return Case(made, "BN Relu", ["no layer is beside it"])


@case
def scale_of_caffe(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Mul", ["c", "s"], ["d"]), node("Add", ["t", "d"], ["y"])]
    made = m.model(nodes, {"s": m.w(1, 4, 1, 1), "t": m.w(4, 1, 1), **m.params(4)}, X)
    return Case(made, "BN", ["no layer is beside it"])


@case
def scale_of_caffe_after_a_conv(m: Maker) -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["k"]),
        norm("k", "c"),
        node("Mul", ["c", "s"], ["d"]),
        node("Add", ["d", "t"], ["y"]),
    ]
    arrays = {"w": m.w(4, 4, 3, 3), "s": m.w(1, 4, 1, 1), "t": m.w(1, 4, 1, 1), **m.params(4)}
    return Case(m.model(nodes, arrays, X), "Conv")


@case
def scale_along_another_axis(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(7, 4, 3, 3), "s": m.w(7), **m.params(7)}, X), "Conv Mul")


@case
def scale_that_broadcasts_channels(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(1, 4, 3, 3), "s": m.w(1, 5, 1, 1), **m.params(1)}, X), "Conv Mul")


@case
def scale_that_adds_an_axis(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["k"]), norm("k", "c"), node("Mul", ["c", "s"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), "s": m.w(1, 1, 1, 1, 1), **m.params(6)}, X), "Conv Mul")


@case
def written_out(m: Maker) -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["k"]),
        node("Sub", ["k", "mean"], ["c"]),
        node("Div", ["c", "std"], ["d"]),
        node("Mul", ["gamma", "d"], ["e"]),
        node("Sub", ["beta", "e"], ["f"]),
        norm("f", "y"),
    ]
    one = (6, 1, 1)
    arrays = {name: m.w(*one) for name in ("mean", "gamma", "beta")}
    arrays["std"] = m.rng.uniform(0.5, 2, one).astype(m.dtype)
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **arrays, **m.params(6)}, X), "Conv")


@case
def written_out_alone(m: Maker) -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["k"]),
        node("Sub", ["k", "mean"], ["c"]),
        node("Mul", ["c", "gamma"], ["y"]),
    ]
    arrays = {name: m.w(6, 1, 1) for name in ("mean", "gamma")}
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **arrays}, X), "Conv")


@case
def less_than_a_batch_norm(m: Maker) -> Case:
    """A scale behind a bias, a scale alone, and one number for all channels are what their author wants them to be."""
    nodes = [
        node("Conv", ["x", "w"], ["k"]),
        node("Add", ["k", "t"], ["c"]),
        node("Mul", ["c", "t"], ["b"]),
        node("Relu", ["b"], ["d"]),
        node("Conv", ["d", "u"], ["e"]),
        node("Mul", ["e", "t"], ["f"]),
        node("Relu", ["f"], ["h"]),
        node("Conv", ["h", "u"], ["i"]),
        node("Mul", ["i", "s"], ["j"]),
        node("Add", ["j", "t"], ["y"]),
    ]
    arrays = {"w": m.w(6, 4, 3, 3), "u": m.w(6, 6, 1, 1), "t": m.w(6, 1, 1), "s": m.w(1)}
    return Case(m.model(nodes, arrays, X), "Conv Add Mul Relu Conv Mul Relu Conv Mul Add")


@case
def scaled_and_shifted_behind_a_bias(m: Maker) -> Case:
    nodes = [
        node("MatMul", ["x", "w"], ["k"]),
        node("Add", ["k", "a"], ["c"]),
        node("Mul", ["c", "s"], ["d"]),
        node("Add", ["t", "d"], ["y"]),
    ]
    arrays = {"w": m.w(4, 6), **{name: m.w(6) for name in "ast"}}
    return Case(m.model(nodes, arrays, [2, 3, 4]), "MatMul Add")


@case
def bias_and_nothing_after_a_conv(m: Maker) -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["k"]),
        node("Add", ["k", "t"], ["c"]),
        node("Identity", ["c"], ["d"]),
        norm("d", "e"),
        node("Identity", ["e"], ["y"]),
    ]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), "t": m.w(1, 6, 1, 1), **m.params(6)}, X), "Conv Identity")


@case
def a_constant_divided_by_it(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["k"]), node("Div", ["s", "k"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), "s": m.w(1, 6, 1, 1), **m.params(6)}, X)
    return Case(made, "Conv Div BN", ["after Div 'c'"])


# What something else needs.


@case
def conv_used_twice(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "d"), node("Add", ["c", "d"], ["y"])]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X)
    return Case(made, "Conv BN Add", ["the output of Conv 'c' is used elsewhere as well"])


@case
def conv_put_out(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X, outputs=("y", "c"))
    return Case(made, "Conv BN", ["the output of Conv 'c' is an output of the graph as well"])


@case
def norm_put_out_before_a_conv(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"])]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4)}, X, outputs=("y", "c"))
    return Case(made, "BN Conv", ["its output is an output of the graph"])


@case
def weight_of_two_convs(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), norm("c", "d"), node("Conv", ["d", "w"], ["y"])]
    return Case(m.model(nodes, {"w": m.w(4, 4, 3, 3), **m.params(4)}, X), "Conv Conv")


@case
def parameters_of_two_norms(m: Maker) -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        norm("c", "d"),
        node("Relu", ["d"], ["e"]),
        norm("e", "f"),
        node("Relu", ["f"], ["y"]),
    ]
    nodes[3].name = "second"
    return Case(
        m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X), "Conv Relu BN Relu", ["no layer is beside it"]
    )


@case
def numbers_in_common(m: Maker) -> Case:
    """beta and mean are one tensor, and gamma and variance another one, which is an output as well."""
    nodes = [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "v", "b", "b", "v"], ["y"], name="norm")]
    params = m.params(6)
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), "b": params["b"], "v": params["v"]}, X, outputs=("y", "v"))
    return Case(made, "Conv")


@case
def weight_of_an_operator(m: Maker) -> Case:
    nodes = [
        node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(m.w(3, 3, 4, 6))),
        node("Transpose", ["k"], ["w"], perm=[3, 2, 0, 1]),
        node("ConstantOfShape", ["s"], ["v"], value=onnx.numpy_helper.from_array(np.array([2], m.dtype))),
        node("Identity", ["v"], ["g"]),
        node("Conv", ["x", "w"], ["c"]),
        norm("c", "y"),
    ]
    params = m.params(6)
    return Case(m.model(nodes, {"s": np.array([6]), "b": params["b"], "m": params["m"]}, X), "Conv")


@case
def weight_that_is_computed(m: Maker) -> Case:
    nodes = [node("Relu", ["u"], ["w"]), node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"u": m.w(6, 4, 3, 3), **m.params(6)}, X)
    return Case(made, "Relu Conv BN", ["'w' is computed by Relu"])


@case
def parameters_that_are_computed(m: Maker) -> Case:
    nodes = [node("Abs", ["u"], ["v"]), node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    params = m.params(6)
    params["u"] = params.pop("v")
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **params}, X)
    return Case(made, "Abs Conv BN", ["its parameters are not constant: 'v' is computed by Abs"])


@case
def weight_that_may_be_overridden(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X, overridden=["w"])
    return Case(made, "Conv BN", ["'w' is an input of the graph as well"])


@case
def all_that_may_be_overridden_as_in_old_files(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X, ir=3, opset=8)
    return Case(made, "Conv BN", ["is an input of the graph as well"])


@case
def variance_that_is_negative(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y")]
    params = m.params(6)
    params["v"][3] = -1
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **params}, X)
    return Case(made, "Conv BN", ["running_var is -1 at channel 3"])


@case
def in_training(m: Maker) -> Case:
    nodes = [node("Conv", ["x", "w"], ["c"]), norm("c", "y", training_mode=1, outputs=["y", "m2", "v2"])]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X)
    return Case(made, "Conv BN", ["training_mode=1"])


@case
def unused(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Relu", ["x"], ["y"])]
    return Case(m.model(nodes, m.params(4), X), "BN Relu", ["nothing uses its output"])


@case
def of_another_domain(m: Maker) -> Case:
    """An operator of the same name that is somebody's own is no batch norm."""
    theirs = onnx.helper.make_function(
        "own", "BatchNormalization", ["a", "b", "c", "d", "e"], ["f"], [node("Relu", ["a"], ["f"])],
        [onnx.helper.make_opsetid("", 17)],
    )  # fmt: skip
    last = norm("c", "y")
    last.domain = "own"
    nodes = [node("Conv", ["x", "w"], ["c"]), last]
    own = [onnx.helper.make_opsetid("own", 1)]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X, functions=[theirs], imports=own), "Conv BN")


@case
def in_a_function(m: Maker) -> Case:
    body = [node("BatchNormalization", ["a", "b", "c", "d", "e"], ["f"], name="inner")]
    function = onnx.helper.make_function(
        "own", "Wrapped", ["a", "b", "c", "d", "e"], ["f"], body, [onnx.helper.make_opsetid("", 17)]
    )
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Wrapped", ["c", "g", "b", "m", "v"], ["y"], domain="own")]
    own = [onnx.helper.make_opsetid("own", 1)]
    made = m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(6)}, X, functions=[function], imports=own)
    return Case(made, "Conv Wrapped", ["it stands in a function"])
