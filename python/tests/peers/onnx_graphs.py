# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models with batch norms in every other place: CASES has them all."""

from __future__ import annotations

import numpy as np
from onnx_making import CASES, Case, Maker, X, case, node, norm, onnx

__all__ = ["CASES"]


# Batch norms after a layer.


@case
def matmul_of_unknown_rank(m: Maker) -> Case:
    nodes = [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["r", "w"], ["c"]), norm("c", "y")]
    shape = onnx.helper.make_tensor_value_info("s", onnx.TensorProto.INT64, ["rank"])
    made = m.model(nodes, {"w": m.w(4, 6), **m.params(6)}, [3, 4], inputs=[shape])
    return Case(made, "Reshape MatMul BN", ["the shape of what goes into MatMul 'c' is not known"])


# Batch norms before a layer.


@case
def before_padded_conv_without_shift(m: Maker) -> Case:
    nodes = [norm("x", "c"), node("Conv", ["c", "w"], ["y"], pads=[1] * 4)]
    return Case(m.model(nodes, {"w": m.w(6, 4, 3, 3), **m.params(4, shift=False)}, X), "Conv")


@case
def before_flattened_and_dropped_gemm(m: Maker) -> Case:
    """A classifier may have its Dropout behind the Flatten."""
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


# Graphs in which something else needs a tensor or a weight.


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
