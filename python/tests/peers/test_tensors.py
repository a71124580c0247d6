# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch, JAX and array-api-strict as inputs and outputs: nothing is copied, results are of their kind."""

from __future__ import annotations

import gc
import importlib
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from helpers import without_built_ins

import batchnorm as bn
from batchnorm._core import built_ins

torch = pytest.importorskip("torch")

DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16
LAYOUTS: dict[str, Any] = {
    "C": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "slices": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.fixture(params=DTYPES, ids=str)
def given(request: pytest.FixtureRequest, rng: np.random.Generator) -> list[Any]:
    """x, gamma, beta, running_mean and running_var."""
    dtype = request.param
    param = torch.float64 if dtype is torch.float64 else torch.float32
    x = torch.from_numpy(rng.normal(1, 2, size=(4, 3, 5, 2))).to(dtype)
    return [x, *(torch.from_numpy(rng.uniform(0.5, 2, size=3)).to(param) for _ in range(4))]


def bits(tensor: Any) -> bytes:
    tensor = tensor.detach().contiguous()
    raw: bytes = tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return raw


def array_of(tensor: Any) -> Any:
    """Its memory, bfloat16 as two bytes."""
    is_bfloat16 = tensor.dtype is torch.bfloat16
    return tensor.view(torch.int16).numpy().view("V2") if is_bfloat16 else tensor.numpy()


def copies(tensors: list[Any]) -> list[Any]:
    return [array_of(tensor.clone()) for tensor in tensors]


@pytest.mark.parametrize("by", ["built-in", "ctypes"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_calls_are_those_of_arrays(given: list[Any], layout: str, by: str) -> None:
    x, gamma, beta, mean, var = given
    x = LAYOUTS[layout](x)
    others = copies([x, *given[1:]])
    expected, known = bn.forward_training(*others[:3], running_mean=others[3], running_var=others[4])
    evaluated = bn.forward_inference(*others[:3], running_mean=others[3], running_var=others[4])
    for _ in "12":  # the first makes the tensors' type known
        moved = mean.clone(), var.clone()
        if by == "ctypes":
            with without_built_ins():
                y, saved = bn.forward_training(x, gamma, beta, running_mean=moved[0], running_var=moved[1])
                gradients = bn.backward(y, x, saved)
        else:
            y, saved = bn.forward_training(x, gamma, beta, running_mean=moved[0], running_var=moved[1])
            gradients = bn.backward(y, x, saved)
    assert (type(y), y.dtype, bits(y)) == (torch.Tensor, x.dtype, expected.tobytes())
    assert [bits(each) for each in moved] == [each.tobytes() for each in others[3:]]
    assert np.array_equal(saved.mean, known.mean)
    assert y.stride() == tuple(stride // y.itemsize for stride in expected.strides)
    wanted = bn.backward(expected, others[0], known)
    assert [bits(each) for each in gradients] == [each.tobytes() for each in wanted]
    assert [type(each) for each in gradients] == [torch.Tensor] * 3
    found = bn.forward_inference(x, gamma, beta, running_mean=moved[0], running_var=moved[1])
    assert bits(found) == evaluated.tobytes()


def test_built_ins_take_them(given: list[Any]) -> None:
    x, *others = given
    bn.forward_training(x)
    if torch.Tensor.__dict__.get("__dlpack_c_exchange_api__") is None:
        pytest.skip("this PyTorch does not describe tensors to C")
    y = torch.empty_like(x)
    record = built_ins.forward_training(x, *others, y, 1, 0.1, 1e-5, True)
    assert type(record) is bytes
    for wrong in (
        x.to_sparse(),
        x.to("meta"),
        torch._neg_view(x)[..., :1],
        x.to(torch.complex64).conj().imag if x.dtype is torch.float32 else None,
        x.transpose(2, 3),
    ):
        assert built_ins.forward_training(wrong, *others, y, 1, 0.1, 1e-5, True) is None
    # Beside arrays no tensor is read: nobody has asked if its gradient is recorded.
    if x.dtype is not torch.bfloat16:
        assert built_ins.forward_training(x.numpy(), *others, y.numpy(), 1, 0.1, 1e-5, True) is None


def test_outputs_are_the_tensors_that_were_given(given: list[Any]) -> None:
    x, gamma, beta, *_ = given
    y, saved = bn.forward_training(x, gamma, beta)
    for with_relu in ({}, {"activation": "relu"}):
        out, into = torch.empty_like(x), torch.empty_like(x)
        found, kept = bn.forward_training(x, gamma, beta, out=out, **with_relu)
        assert found is out
        assert bits(out) == bits(y.relu() if with_relu else y)
        dx, *_ = bn.backward(y, x, kept, out=into)
        assert dx is into
    assert np.array_equal(saved.mean, kept.mean)


def test_gradients_that_would_not_be_recorded(given: list[Any]) -> None:
    x, gamma, beta, mean, var = given
    parameter = torch.nn.Parameter(gamma)
    wishing = x.clone().requires_grad_()
    running = {"running_mean": mean, "running_var": var}
    bn.forward_training(x)
    calls: list[tuple[str, Any]] = [
        ("x", lambda: bn.forward_training(wishing, gamma, beta)),
        ("gamma", lambda: bn.forward_training(x, parameter, beta)),
        ("gamma", lambda: bn.forward_inference(x, parameter, beta, **running)),
        ("out", lambda: bn.forward_training(x, gamma, beta, out=wishing)),
        ("running_mean", lambda: bn.forward_training(x, running_mean=parameter, running_var=var)),
        ("x", lambda: bn.BatchNorm2d(3, dtype=str(x.dtype)[6:])(wishing)),
        ("dy", lambda: bn.backward(wishing, x, bn.forward_training(x)[1])),
        ("x", lambda: bn.moments(wishing)),
    ]
    for name, call in calls:
        with pytest.raises(TypeError, match=rf"{name} requires a gradient, .* give {name}.detach\(\), or .*no_grad"):
            call()
    before = bits(x)
    with torch.no_grad():
        for _, call in calls:
            call()
    assert bits(x) == before
    y, _ = bn.forward_training(x, gamma, beta)
    with torch.no_grad():
        assert bits(bn.forward_training(wishing, parameter, beta)[0]) != bits(y) or bits(wishing) == bits(x)


def test_tensors_that_are_lazily_negated(rng: np.random.Generator) -> None:
    """DLPack gives their memory as it is, which has the other sign."""
    pairs = torch.from_numpy(rng.normal(size=(4, 3, 2)).astype("f4"))
    negated = torch.view_as_complex(pairs).conj().imag
    assert negated.is_neg()
    assert np.array_equal(bn.moments(negated).mean, -bn.moments(pairs[..., 1].contiguous()).mean)
    for _ in "12":
        assert np.array_equal(bn.forward_training(negated)[1].mean, bn.moments(negated).mean)
    complexes = torch.from_numpy(rng.normal(size=(8, 8, 2)).astype("f4"))
    dense = torch.view_as_complex(complexes).conj().imag.as_strided((8, 4), (4, 1))
    for _ in "12":
        assert torch.equal(bn.forward_training(dense)[0], bn.forward_training(dense.resolve_neg())[0])
    vector = torch.view_as_complex(complexes[:1, :3]).conj().imag.as_strided((3,), (1,))
    x = pairs[..., 1].contiguous()
    for _ in "12":
        expected, _ = bn.forward_training(x, vector.resolve_neg())
        assert torch.equal(bn.forward_training(x, vector)[0], expected)
    one = negated[:1, :1]
    running = {"running_mean": torch.zeros(1), "running_var": torch.ones(1)}
    for _ in "12":
        assert bn.forward_inference(one, eps=0.0, **running) == one
    with pytest.raises(TypeError, match="out has its negative bit set"):
        bn.forward_training(pairs[..., 1], out=negated)


def test_memory_that_was_freed(given: list[Any]) -> None:
    """It is not an argument that is absent."""

    def freed(tensor: Any) -> Any:
        tensor = tensor.clone()
        tensor.untyped_storage().resize_(0)
        return tensor

    x, gamma, _, mean, var = given
    for _ in "12":
        for name, call in (
            ("x", lambda: bn.forward_training(freed(x))),
            ("gamma", lambda: bn.forward_training(x, freed(gamma))),
            ("out", lambda: bn.forward_training(x, out=freed(x))),
            ("running_mean", lambda: bn.forward_training(x, running_mean=freed(mean), running_var=var)),
            ("out", lambda: bn.backward(x, x, bn.forward_training(x)[1], out=freed(x))),
        ):
            with pytest.raises(TypeError, match=f"{name} is of type torch.Tensor, whose memory was freed"):
                call()


def test_pytorch_hears_of_what_is_written(given: list[Any]) -> None:
    """Its gradient of what was there before would be wrong."""
    x, *others = given
    for told in ({}, {"activation": "relu"}):
        for _ in "12":
            out, mean, var = torch.empty_like(x), others[2].clone(), others[3].clone()
            y, saved = bn.forward_training(x, *others[:2], running_mean=mean, running_var=var, out=out, **told)
            assert (out._version > 0, mean._version > 0, var._version > 0) == (True, True, True)
            dx = torch.empty_like(x)
            bn.backward(y, x, saved, out=dx)
            assert dx._version > 0
    layer, out = bn.BatchNorm2d(3, dtype=x.dtype), torch.empty_like(x)
    layer(x, out)
    assert out._version > 0
    weight = torch.nn.Parameter(torch.tensor(2.0, dtype=x.dtype))
    hidden = torch.sigmoid(x * weight)
    bn.forward_training(hidden.detach(), out=hidden.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hidden.sum().backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_tangents_are_not_lost(given: list[Any]) -> None:
    forward_ad = torch.autograd.forward_ad
    x = given[0]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        for _ in "12":
            with pytest.raises(TypeError, match="x has a tangent, which is not propagated here"):
                bn.forward_training(dual)
        assert torch.equal(bn.forward_training(x)[0], bn.forward_training(x.clone())[0])
    for transform in (torch.func.vmap, torch.func.grad):
        with pytest.raises((TypeError, RuntimeError)):
            transform(lambda t: bn.forward_training(t)[0].sum())(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_a_graph_is_not_recorded_without_the_call(given: list[Any]) -> None:
    x, make_fx = given[0], importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)

    def call(tensor: Any) -> Any:
        return bn.forward_training(tensor)[0]

    expected = call(x)
    for record in (
        lambda: torch.jit.trace(call, (x,)),
        lambda: make_fx(call)(x),
        lambda: make_fx(call, tracing_mode="fake")(x),
    ):
        with pytest.raises(TypeError, match=r"x is given while PyTorch records a graph, .* batchnorm\.torch"):
            record()
    with counter:
        assert torch.equal(call(x), expected)


def test_subclasses_of_tensor(given: list[Any]) -> None:
    class Own(torch.Tensor):
        pass

    class OwnParameter(torch.nn.Parameter):
        pass

    x, gamma, *_ = given
    y, _ = bn.forward_training(x, gamma)
    with torch.no_grad():
        found, _ = bn.forward_training(x.as_subclass(Own).requires_grad_(), OwnParameter(gamma))
    assert isinstance(found, torch.Tensor)
    assert bits(found) == bits(y)


def test_out_is_the_result(given: list[Any]) -> None:
    """Whatever the kinds of the tensors are."""
    x = given[0]
    if x.dtype is torch.bfloat16:
        pytest.skip("NumPy has no such dtype")
    array = x.numpy()
    for _ in "12":
        for first, out in ((x, np.empty_like(array)), (array, torch.empty_like(x))):
            for told in ({}, {"activation": "relu"}):
                assert bn.forward_training(first, out=out, **told)[0] is out


def test_empty_and_whole_numbers(given: list[Any]) -> None:
    x = given[0]
    layer = bn.BatchNorm2d(3, dtype=x.dtype)
    for _ in "12":
        layer(x[:0])
        assert layer.backward(x[:0]).shape == x[:0].shape
    whole = (10 * x).round().to(torch.int32)
    assert bits(layer.eval()(whole)) == bits(layer(whole.to(x.dtype)))


def test_layers_take_them(given: list[Any]) -> None:
    x = given[0]
    dtype = str(x.dtype)[6:]
    theirs = torch.nn.BatchNorm2d(3, dtype=torch.float64).train()
    layer, other = bn.BatchNorm2d(3, dtype=dtype), bn.BatchNorm2d(3, dtype=dtype)
    array = array_of(x).view(other.dtype)
    for _ in "12":
        y = layer(x)
        assert bits(y) == other(array).tobytes()
        assert bits(layer.backward(y)) == other.backward(array_of(y).view(other.dtype)).tobytes()
        assert type(layer.grad_gamma) is np.ndarray
        assert np.array_equal(layer.grad_gamma, other.grad_gamma)
        theirs(x.double())
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    assert np.allclose(layer.running_mean, theirs.running_mean, **tolerance)
    assert bits(layer.eval()(x)) == other.eval()(array).tobytes()
    wrong = torch.float64 if x.dtype is not torch.float64 else torch.float32
    for trained in (True, False):
        with pytest.raises(TypeError, match=f"expected {layer.dtype}, the dtype of the layer"):
            layer.train(trained)(x.to(wrong))


def test_a_tensor_lives_as_long_as_it_is_needed(given: list[Any]) -> None:
    x = given[0].clone()
    alive = weakref.ref(x)
    layer = bn.BatchNorm2d(3, dtype=str(x.dtype)[6:])
    layer(x), layer(x)
    y, _ = bn.forward_training(x)
    del x
    gc.collect()
    assert alive() is not None
    layer.backward(y)
    del layer
    gc.collect()
    assert alive() is None


def test_references_that_are_dropped_while_a_call_runs(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.normal(size=(64, 32, 64)).astype("f4"))
    expected, _ = bn.forward_training(x)
    ends = threading.Event()

    def take_memory() -> None:
        while not ends.is_set():
            torch.full(x.shape, float("nan"))

    thread = threading.Thread(target=take_memory)
    thread.start()
    try:
        for _ in range(50):
            assert torch.equal(bn.forward_training(x.clone())[0], expected)
    finally:
        ends.set()
        thread.join()


def test_jax_arrays() -> None:
    jnp = pytest.importorskip("jax.numpy")
    jax = pytest.importorskip("jax")
    values = np.random.default_rng(7).normal(size=(4, 3, 5)).astype("f4")
    x = jnp.asarray(values)
    y, saved = bn.forward_training(x)
    assert isinstance(y, jax.Array)
    assert np.array_equal(y, bn.forward_training(values)[0])
    gradients = bn.backward(y, x, saved)
    assert all(isinstance(each, jax.Array) for each in gradients)
    for _ in "12":
        with pytest.raises(TypeError, match="out is of type .*, which cannot be written"):
            bn.forward_training(values, out=x)
    assert np.array_equal(x, values)
    halves = x.astype(jnp.bfloat16)
    y, _ = bn.forward_training(halves)
    assert (y.dtype, isinstance(y, jax.Array)) == (jnp.bfloat16, True)
    assert np.array_equal(np.asarray(y), bn.forward_training(np.asarray(halves))[0])
    with pytest.raises(TypeError, match="x is of type .*Tracer"):
        jax.jit(lambda x: bn.forward_training(x)[0])(x)


def test_array_api_strict() -> None:
    xp = pytest.importorskip("array_api_strict")
    values = np.random.default_rng(7).normal(size=(4, 3, 5)).astype("f4")
    y, saved = bn.forward_training(xp.asarray(values))
    assert type(y) is type(xp.asarray(values))
    assert np.array_equal(np.asarray(y), bn.forward_training(values)[0])
    assert [type(each) for each in bn.backward(y, xp.asarray(values), saved)] == [type(y)] * 3
