# SPDX-License-Identifier: Apache-2.0
"""Slips that are easily made: a text for a flag, None for an array, another package's tensor or layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

X = np.random.default_rng(20261121).normal(size=(4, 3, 5)).astype("f4")
_, SAVED = bn.forward_training(X)
WEIGHT = np.ones((3, 2, 1), "f4")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda no: bn.BatchNorm2d(4, affine=no), "affine"),
        (lambda no: bn.BatchNorm2d(4, track_running_stats=no), "track_running_stats"),
        (lambda no: bn.BatchNorm2d(4, bias=no), "bias"),
        (lambda no: bn.BatchNorm2d(4, unbiased=no), "unbiased"),
        (lambda no: bn.LazyBatchNorm2d(affine=no), "affine"),
        (lambda no: bn.BatchNorm2d(4).train(no), "mode"),
        (
            lambda no: bn.forward_training(
                X, None, None, running_mean=np.zeros(3, "f4"), running_var=np.ones(3, "f4"), unbiased=no
            ),
            "unbiased",
        ),
        (lambda no: bn.moments(X).var(no), "unbiased"),
        (lambda no: bn.from_state(bn.BatchNorm(3).state_dict(), "pytorch", unbiased=no), "unbiased"),
        (lambda no: bn.BatchNorm(3).load_state_dict(bn.BatchNorm(3).state_dict(), strict=no), "strict"),
        (lambda no: bn.fold_conv(WEIGHT, None, bn.BatchNorm(3), transposed=no), "transposed"),
    ],
)
def test_a_text_is_no_flag(call: Callable[[Any], object], name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is 'no', expected True or False"):
        call("no")
    with pytest.raises(TypeError, match=f"{name} is 2, expected True or False"):
        call(2)


class Tensor:
    """Stands for a tensor that PyTorch computes gradients of."""

    dtype = "torch.float32"

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, *arguments: Any, **told: Any) -> Any:
        raise RuntimeError("it requires grad")

    def detach(self) -> Any:
        return self

    def cpu(self) -> Any:
        return self.values


@pytest.mark.parametrize("value", [None, Tensor(X)])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda value: bn.forward_training(value), "x"),
        (lambda value: bn.BatchNorm(3)(value), "x"),
        (lambda value: bn.backward(value, X, SAVED), "dy"),
        (lambda value: bn.jvp(value, SAVED, x_tangent=X), "x"),
        (lambda value: bn.double_backward(value, X, SAVED, grad_dx=X), "dy"),
        (lambda value: bn.double_backward(X, value, SAVED, grad_dx=X), "x"),
        (lambda value: bn.fold_conv(value, None, bn.BatchNorm(3)), "weight"),
        (lambda value: bn.onnx.batch_normalization_15(X, value, X, X, X), "scale"),
    ],
)
def test_what_is_no_array(call: Callable[[Any], object], name: str, value: Any) -> None:
    said = (
        "None, expected an array" if value is None else "of type test_slips.Tensor, which is no array to NumPy: it req"
    )
    with pytest.raises(TypeError, match=f"^{name} is {said}"):
        call(value)


def test_tensors_with_gradients_are_a_state(tmp_path: Any) -> None:
    state = {key: Tensor(array) for key, array in bn.BatchNorm(3).state_dict().items()}
    state["weight"].values = np.float32([1, 2, 3])
    layer = bn.BatchNorm(3)
    layer.load_state_dict(state)
    assert layer.gamma.tolist() == [1, 2, 3]
    bn.write_state(tmp_path / "state.npz", state)
    assert bn.read_state(tmp_path / "state.npz")["weight"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bn.BatchNorm(3).load_state_dict(None), "state is of type NoneType, expected a mapping"),
        (lambda: bn.read_state(None), "path is of type NoneType, expected a text or a pathlib.Path"),
        (lambda: bn.read_state(b"x.npz"), "path is of type bytes, expected a text or a pathlib.Path"),
        (lambda: bn.write_state({}, "x.npz"), "path is of type dict, expected a text or a pathlib.Path"),
        (lambda: bn.BatchNorm2d("4"), "num_features is '4', expected a whole number"),
        (lambda: bn.BatchNorm2d(4, dtype="flaot32"), "dtype is 'flaot32', expected float32, float64, float16 or bf"),
        (lambda: bn.from_state({}, "pytorch", num_features=3, dtype="flaot32"), "dtype is 'flaot32', expected float32"),
    ],
)
def test_what_is_of_another_type(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_another_package_has_classes_of_the_same_name() -> None:
    other = type("BatchNorm2d", (), {"__module__": "torch.nn.modules.batchnorm"})()
    with pytest.raises(TypeError, match="norm is of type torch.nn.modules.batchnorm.BatchNorm2d, expected BatchNorm"):
        bn.fold_conv(WEIGHT, None, other)
    with pytest.raises(TypeError, match="layer is of type torch.nn.modules.batchnorm.BatchNorm2d, expected"):
        bn.to_state(other, "pytorch")


def test_a_folder_that_is_not_there(tmp_path: Any) -> None:
    path = tmp_path / "none" / "x.npz"
    with pytest.raises(FileNotFoundError, match=f"{path} cannot be written: there is no folder {path.parent}"):
        bn.write_state(path, {})


def test_which_batch_it_was() -> None:
    layer = bn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="x has one value per channel") as caught:
        bn.recalibrate(layer, layer, [X[:, :, 0], X[:1, :, 0]], progress=False)
    assert getattr(caught.value, "__notes__", ["This was batch 1 of recalibrate()."]) == [
        "This was batch 1 of recalibrate()."
    ]


def test_an_array_of_samples_is_not_one_of_batches() -> None:
    layer = bn.BatchNorm1d(3)
    with pytest.raises(ValueError, match=r"expected 2D or 3D input \(got 1D input\)") as caught:
        bn.recalibrate(layer, layer, X[:, :, 0], progress=False)
    for note in getattr(caught.value, "__notes__", []):
        assert note.endswith("[x] is one batch.")


def test_the_rights_of_a_file_stay(tmp_path: Any) -> None:
    path = tmp_path / "x.npz"
    bn.write_state(path, {"x": np.ones(3)})
    path.chmod(0o600)
    bn.write_state(path, {"x": np.zeros(3)})
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_suffix_is_that_of_the_path_that_was_given(tmp_path: Any) -> None:
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "real.bin")
    bn.write_state(link, {"x": np.ones(3)})
    assert link.is_symlink()
    assert bn.read_state(link)["x"].tolist() == [1, 1, 1]


def test_moments_that_are_none_are_named() -> None:
    seen = bn.moments(X)
    with pytest.raises(ValueError, match="other's count has a value -1"):
        seen.merge(([-1.0], [0.0], [0.0]))
    with pytest.raises(ValueError, match="other's mean has shape"):
        seen.merge("abc")


def test_a_state_without_end() -> None:
    state: dict[str, Any] = {}
    state["more"] = state
    with pytest.raises(ValueError, match="state is nested without end, or too deeply"):
        bn.from_state(state, "pytorch")


def test_a_state_nested_in_itself_is_not_followed_far() -> None:
    """Each level would be kept: with 100 arrays beside it, what is found before Python's limit fills a gigabyte."""

    class Within(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            looked.append(1)
            return super().items()

    looked: list[int] = []
    state = Within(weight=np.ones(3))
    state["a"] = state
    with pytest.raises(ValueError, match="nested without end"):
        bn.from_state(state, "pytorch")
    assert len(looked) <= 101


def test_a_layer_whose_statistics_are_one_array_is_not_recalibrated() -> None:
    layer = bn.BatchNorm1d(3)
    layer.running_var = layer.running_mean
    with pytest.raises(ValueError, match="running_var of layers .* overlaps its running_mean"):
        bn.recalibrate(layer, lambda x: layer.eval()(x), [X], progress=False)
    assert (layer.running_mean == 0).all()
    assert layer.training


def test_bfloat16_is_rounded_once() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(ml_dtypes.bfloat16)
    x = np.array([[1.0]] * 2**16 + [[1 + 2**-7]] * (2**16 + 1), dtype)
    layer = bn.BatchNorm1d(1, dtype=dtype, param_dtype=dtype)
    bn.recalibrate(layer, layer, [x], progress=False)
    assert layer.running_mean[0] == 1 + 2**-7
    beta = np.array([1 + 2**-8 + 2**-40])
    ones, zeros = np.ones(1), np.zeros(1, "f4")
    y = bn.onnx.batch_normalization_15(np.zeros((1, 1), dtype), ones, beta, zeros, np.ones(1, "f4"))
    assert y[0, 0] == 1 + 2**-7
