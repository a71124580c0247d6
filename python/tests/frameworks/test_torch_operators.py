# SPDX-License-Identifier: Apache-2.0
"""The operators of batchnorm-torch beside the Python way, whose bits they have to give, and in PyTorch's hands."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchnorm as bn

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
batchnorm_torch = pytest.importorskip(
    "batchnorm_torch", reason="batchnorm-torch is not installed: scripts/wheel-torch builds it"
)
bt: Any = pytest.importorskip("batchnorm.torch")
if not bt.operators.THERE:
    pytest.skip("BATCHNORM_TORCH_OPERATORS is 0", allow_module_level=True)
bn_ops = torch.ops.batchnorm

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [(2, 1), (7, 3), (3, 5, 1), (4, 3, 17), (2, 4, 2, 2), (3, 19, 5, 7), (1, 3, 9, 1), (2, 3, 2, 3, 4)]


def last(x: Any) -> Any:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def swapped(x: Any) -> Any:
    """The last two axes in each other's place in memory."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 2 else x


def sliced(x: Any) -> Any:
    """With gaps between elements."""
    return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]


LAYOUTS: dict[str, Callable[[Any], Any]] = {"C": lambda x: x, "last": last, "swapped": swapped, "gaps": sliced}


class Case:
    """Random arguments of a layer."""

    def __init__(self, seed: int, shape: tuple[int, ...], dtype: Any, param: Any = None) -> None:
        make = torch.Generator().manual_seed(seed)
        channels, param = shape[1], param or (torch.float32 if dtype.itemsize == 2 else dtype)
        normal = lambda *sizes: torch.randn(sizes, generator=make, dtype=torch.float64)  # noqa: E731
        self.x, self.dy, self.z = (normal(*shape).mul(3).add(1).to(dtype) for _ in range(3))
        self.weight, self.bias = (normal(channels).add(2).to(param) for _ in range(2))
        self.mean, self.var = normal(channels).to(param), normal(channels).exp().to(param)


def by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.operators, "THERE", False)
    for name in ("_forward", "_forward_in_place", "_backward"):
        monkeypatch.setattr(bt.activated_calls, name, None)


def same(ours: Any, theirs: Any) -> None:
    """Bits, strides and dtypes, in any structure."""
    if isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs):
            same(mine, other)
    elif ours is None:
        assert theirs is None
    else:
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert torch.equal(*(each.detach().flatten().contiguous().view(torch.uint8) for each in (ours, theirs)))


def step(case: Case, affine: tuple[bool, bool], tracking: bool, dy: Any) -> list[Any]:
    x = case.x.detach().requires_grad_()
    weight, bias = (
        value.clone().requires_grad_() if there else None for value, there in zip((case.weight, case.bias), affine)
    )
    mean, var = (case.mean.clone(), case.var.clone()) if tracking else (None, None)
    y = bt.functional.batch_norm(x, mean, var, weight, bias, True, 0.3, 1e-3)
    y.backward(dy)
    return [y, x.grad, *(None if each is None else each.grad for each in (weight, bias)), mean, var, y.grad_fn.name()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_are_those_of_the_python_way(
    shape: tuple[int, ...], dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    for seed in range(4):
        case = Case(seed, shape, dtype, dtype if seed == 3 else None)
        case.x = LAYOUTS[layout](case.x)
        affine, tracking = [(True, True), (True, False), (False, False), (False, True)][seed], seed != 1
        # As it comes from what follows: in x's order, in C order, one number for all, between others.
        between = LAYOUTS[layout](torch.cat([case.dy, case.z], 1))[:, : shape[1]]
        for dy in (LAYOUTS[layout](case.dy), case.dy, torch.ones((), dtype=dtype).expand(shape), between):
            *found, name = step(case, affine, tracking, dy)
            with monkeypatch.context() as there:
                by_python(there)
                *expected, other = step(case, affine, tracking, dy)
            assert other == "EagerBackward"
            assert name == ("EagerBackward" if layout == "gaps" and not case.x.is_contiguous() else "CompiledBackward")
            same(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish", "silu", "identity"])
def test_bits_with_an_activation(activation: str, dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    case = Case(5, (3, 6, 5, 7), dtype)
    case.dy = LAYOUTS[layout](torch.cat([case.z, case.dy], 1))[:, 6:]

    def fused(residual: bool) -> list[Any]:
        layer = bt.BatchNormAct2d(6, activation=activation).to(case.weight.dtype)
        layer.weight.data.copy_(case.weight), layer.bias.data.copy_(case.bias)
        x, z = (LAYOUTS[layout](value).detach().requires_grad_() for value in (case.x, case.z))
        y = layer(x, z if residual else None)
        y.backward(case.dy)
        return [y, x.grad, z.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()]

    for residual in (False, True):
        found = fused(residual)
        with monkeypatch.context() as there:
            by_python(there)
            same(found, fused(residual))


@pytest.mark.parametrize("layout", ["C", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("slope", [0.01, 1])
def test_bits_in_place(slope: float, dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(6, (3, 6, 5, 7), dtype)
    case.dy = LAYOUTS[layout](torch.cat([case.dy, case.z], 1))[:, :6]

    def in_place() -> list[Any]:
        layer = bt.InPlaceABN(6, slope=slope).to(case.weight.dtype)
        layer.weight.data.copy_(case.weight), layer.bias.data.copy_(case.bias)
        leaf = LAYOUTS[layout](case.x).detach().requires_grad_()
        x = leaf * 1
        y = layer(x)
        assert y.data_ptr() == x.data_ptr()
        assert x._version > 0
        kept = y.detach().clone()
        y.backward(case.dy)
        return [kept, leaf.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()]

    found = in_place()
    with monkeypatch.context() as there:
        by_python(there)
        same(found, in_place())


def arguments(case: Case, activated: bool = False) -> dict[str, Any]:
    given = {"x": case.x, "weight": case.weight, "bias": case.bias}
    if activated:
        given["residual"] = None
    given |= {"running_mean": case.mean, "running_var": case.var, "num_batches_tracked": torch.tensor(7)}
    given |= {"momentum": 0.1, "eps": 1e-5}
    return given | ({"activation": 1, "slope": 0.01, "low": 0.0, "high": 6.0} if activated else {})


WRONG = [
    ({"x": torch.ones(4, 3, dtype=torch.int32)}, "x is of a dtype that is none of float32, float64, float16 and"),
    ({"x": torch.ones(4)}, "x has 1 dimensions, expected at least 2"),
    ({"x": torch.ones(1, 3)}, "x has 3 elements, expected more than one per channel"),
    ({"x": torch.ones(0, 3)}, "x has 0 elements, expected more than one per channel"),
    ({"x": torch.ones(4, 3, 2)[:, :, ::2].expand(4, 3, 5)}, "stride"),
    ({"x": torch.ones(8, 3)[::2]}, "x has gaps in memory"),
    ({"weight": torch.ones(4)}, r"weight is not of shape \(3,\)"),
    ({"bias": torch.ones(3, 1)}, r"bias is not of shape \(3,\)"),
    ({"running_var": torch.ones(6)[::2]}, "running_var has gaps in memory"),
    ({"weight": torch.ones(3).double()}, "weight is of another dtype than x"),
    ({"bias": torch.ones(3).bfloat16()}, "bias is of another dtype than x"),
    ({"running_mean": None}, "running_mean is NULL; expected both of a pair"),
    ({"eps": -1.0}, "eps is -1; expected"),
    ({"momentum": 2.0}, "momentum is 2; expected"),
    ({"num_batches_tracked": torch.ones(3, dtype=torch.int64)}, "num_batches_tracked is not a single number of int64"),
    ({"num_batches_tracked": torch.tensor(1.0)}, "num_batches_tracked is not a single number of int64"),
    ({"running_mean": "x"}, "running_mean.*overlap|overlap.*running_mean"),
]


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_is_refused_is_told_and_nothing_is_written(wrong: dict[str, Any], told: str, activated: bool) -> None:
    case = Case(1, (4, 3), torch.float32)
    given = arguments(case, activated) | wrong
    if wrong == {"running_mean": "x"}:
        given["running_mean"] = case.x.view(-1)[:3]
    before = copy.deepcopy(given)
    call = bn_ops.forward_activated if activated else bn_ops.forward_training
    with pytest.raises(RuntimeError, match=told):
        call(**given)
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, before[name]), name


def test_what_is_refused_going_back() -> None:
    case = Case(1, (4, 3), torch.float32)
    _, statistics = bn_ops.forward_training(**arguments(case))
    right = [case.dy, case.x, case.weight, case.bias, statistics]
    for place, value, told in (
        (0, case.dy.double(), "dy is of another dtype than x"),
        (0, case.dy[:2], "dy is of another shape than x"),
        (4, statistics[:, :2], "statistics are none of a forward call with this x"),
        (4, statistics.float(), "statistics are none of a forward call with this x"),
        (2, case.weight[:2], r"weight is not of shape \(3,\)"),
    ):
        with pytest.raises(RuntimeError, match=told):
            bn_ops.backward(*right[:place], value, *right[place + 1 :])
    with pytest.raises(RuntimeError, match="activation is 6, expected 0 to 5"):
        bn_ops.backward_activated(*right[:4], None, statistics, 6, 0.01, 0.0, 6.0, False)
    zero = torch.tensor([1.0, 0.0, 1.0])
    with pytest.raises(RuntimeError, match="gamma.* is 0"):
        bn_ops.backward_activated(case.dy, case.x, zero, case.bias, None, statistics, 2, 0.5, 0.0, 6.0, True)


def test_errors_of_batch_norm_are_the_python_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    told = []
    for by in ("operators", "Python"):
        if by == "Python":
            by_python(monkeypatch)
        with pytest.raises(ValueError, match="eps") as error:
            bt.functional.batch_norm(torch.ones(4, 3), None, None, training=True, eps=-1)
        told.append(str(error.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pytorch_checks_the_operators(dtype: Any) -> None:
    for layout in (lambda x: x, last):
        case = Case(2, (3, 4, 5, 2), dtype)
        x, dy, z = map(layout, (case.x, case.dy, case.z))
        both = case.mean, case.var
        activation = 1, 0.01, 0.0, 6.0
        _, statistics = bn_ops.forward_training(x, case.weight, case.bias, None, None, None, 0.1, 1e-5)
        plain = "test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"
        for given in ((case.weight, case.bias, *both), (None, None, None, None)):
            parameters, running = given[:2], given[2:]
            count = None if running[0] is None else torch.tensor(3)
            check = torch.library.opcheck
            check(bn_ops.forward_training, (x, *given, count, 0.1, 1e-5), test_utils=plain)
            for residual in (z, None):
                told = x, *parameters, residual, *running, count, 0.1, 1e-5, *activation
                check(bn_ops.forward_activated, told, test_utils=plain)
                told = dy, x, *parameters, residual, statistics, *activation, False
                check(bn_ops.backward_activated, told, test_utils=plain)
            check(bn_ops.forward_activated_, (x, *given, count, 0.1, 1e-5, *activation), test_utils=plain)
            check(bn_ops.backward, (dy, x, *parameters, statistics), test_utils=plain)
            wanted = [each if each is None else each.clone().requires_grad_() for each in (x, *parameters)]
            check(bn_ops.forward_functional, (*wanted, *running, 0.1, 1e-5), test_utils=plain)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # by PyTorch itself
def test_derivatives_beyond_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    for layout in (lambda x: x, last):
        case = Case(3, (3, 2, 2, 2), torch.float64)
        given = [each.requires_grad_() for each in (layout(case.x), case.weight, case.bias)]

        def call(x: Any, weight: Any, bias: Any) -> Any:
            return bt.functional.batch_norm(x, None, None, weight, bias, True)

        assert call(*given).grad_fn.name() == "CompiledBackward"
        assert torch.autograd.gradcheck(call, given, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(call, given)
    x, t = case.x.detach(), torch.randn(case.x.shape, dtype=torch.float64)
    _, tangent = torch.func.jvp(lambda x: call(x, None, None), (x,), (t,))
    step = 1e-6
    numeric = (call(x + step * t, None, None) - call(x - step * t, None, None)) / (2 * step)
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-6)
    rows = torch.func.vmap(lambda x: call(x, None, None))(torch.stack([x, 2 * x + 1]))
    torch.testing.assert_close(rows[1], call(2 * x + 1, None, None))


def test_what_autograd_knows_of_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    versions = []
    for kind in (bt, torch.nn):
        layer, x = kind.BatchNorm2d(3), torch.randn(4, 3, 2, 2)
        for _ in range(3):
            layer(x)
        assert layer.num_batches_tracked == 3
        versions.append([each._version for each in (x, *layer.state_dict(keep_vars=True).values())])
    assert versions[0] == versions[1]
    with torch.inference_mode():
        layer = bt.BatchNorm2d(3)
        layer(x)
    assert layer.num_batches_tracked == 1


def test_layers_whose_parameters_are_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.utils import parametrize, prune

    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    x, found = torch.randn(4, 3, 2, 2), []
    for kind in (bt, torch.nn):
        pruned, parametrized, swapped = (kind.BatchNorm2d(3) for _ in range(3))
        prune.l1_unstructured(pruned, "weight", amount=1)
        parametrize.register_parametrization(parametrized, "weight", torch.nn.Softplus())
        named = {"weight": torch.full((3,), 5.0), "running_mean": torch.full((3,), 9.0)}
        found.append([pruned(x), parametrized(x), torch.func.functional_call(swapped, named, x)])
        assert (named["running_mean"] < 9).all()
        assert swapped.running_mean.count_nonzero() == 0
    for mine, theirs in zip(*found):
        torch.testing.assert_close(mine, theirs)


def test_a_failure_after_the_operator_does_not_make_it_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    layer, x = bt.BatchNorm2d(3, momentum=0.5), torch.randn(4, 3, 2, 2) + 8

    def fail(_: Any) -> Any:
        raise RuntimeError("nothing is kept")

    with torch.autograd.graph.saved_tensors_hooks(fail, fail), pytest.raises(RuntimeError, match="nothing is kept"):
        layer(x)
    torch.testing.assert_close(layer.running_mean, x.mean((0, 2, 3)) / 2)


@pytest.mark.parametrize("shape", [(16, 4), (2, 4, 6, 5)], ids=str)
def test_graphs_hold_the_operator_on_request(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    x, names = torch.randn(shape), []

    def seen(graph: Any, examples: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)

    def trained(model: Any, layer: Any) -> list[Any]:
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        y.square().sum().backward()
        found = [y.detach(), leaf.grad, layer.weight.grad, *(each.clone() for each in layer.buffers())]
        layer.zero_grad()
        return found

    kind = bt.BatchNorm1d if len(shape) == 2 else bt.BatchNorm2d
    for wanted in (True, False):
        names.clear()
        torch.compiler.reset()
        bt.functional.set_in_graphs(wanted)
        try:
            layer, alone = kind(4), kind(4)
            compiled = torch.compile(layer, backend=seen, fullgraph=True)
            for _ in range(3):
                found, expected = trained(compiled, layer), trained(alone, alone)
                if wanted:
                    same(found, expected)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            assert not any(each.requires_grad for each in layer.buffers())
            with_gaps = torch.cat([x, x], 1)[:, ::2]
            torch.testing.assert_close(compiled(with_gaps), alone(with_gaps), rtol=1e-4, atol=1e-4)
        finally:
            bt.functional.set_in_graphs(False)
        assert any("forward_functional" in name for name in names) == wanted
    torch.compiler.reset()


@pytest.mark.parametrize("kind", [bt.BatchNorm2d, bt.BatchNormAct2d, bt.InPlaceABN])
def test_parameters_on_another_device_are_an_error(kind: Any) -> None:
    """PyTorch takes the function that only knows shapes for the operator then, and its results have no numbers."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        kind(4, device="meta")(torch.randn(8, 4, 6, 6))


def test_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.taking.Smallest, "told", 0)
    cases = [Case(seed, (5, 7, 3, 2), torch.float32) for seed in range(4)]
    expected = [step(case, (True, True), True, case.dy)[:-1] for case in cases]
    wrong = []

    def work(index: int) -> None:
        try:
            for _ in range(200):
                same(step(cases[index], (True, True), True, cases[index].dy)[:-1], expected[index])
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_memory_is_lost() -> None:
    """Results of 120 KB, and refusals, a thousand times."""
    case = Case(1, (100, 3, 10, 10), torch.float32)

    def call() -> None:
        y, statistics = bn_ops.forward_training(**arguments(case))
        bn_ops.backward(y.transpose(2, 3), case.x, case.weight, None, statistics)
        with pytest.raises(RuntimeError):
            bn_ops.backward(y, case.x, case.weight[:2], None, statistics)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(50):
        call()
    before = resident()
    for _ in range(1000):
        call()
    assert resident() - before < 10_000_000


def test_the_binary_asks_for_no_more_than_pytorchs_own_wheels() -> None:
    """They are manylinux_2_28. What it takes from PyTorch are functions of C alone: those have names that stay."""
    binary = Path(batchnorm_torch.LIBRARY).read_bytes()
    for name, newest in ((b"GLIBC_2.", 28), (b"GLIBCXX_3.4.", 24), (b"CXXABI_1.3.", 11)):
        found = [int(each) for each in re.findall(re.escape(name) + rb"(\d+)", binary)]
        assert found, name
        assert max(found) <= newest, name
    assert not re.findall(rb"\0_ZNK?(?:2at|3c10|5torch)\w+", binary)
    assert b"libtorch_cpu.so\0" in binary
    assert b"libbatchnorm" not in binary


def imported(tmp_path: Path, package: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """batchnorm.torch beside a batchnorm_torch of these sources."""
    folder = tmp_path / "batchnorm_torch"
    folder.mkdir()
    (folder / "__init__.py").write_text(package)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    code = "import batchnorm.torch as bt; print(bt.operators.THERE)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_a_package_that_does_not_fit_is_told_in_a_sentence(tmp_path: Path) -> None:
    copied = tmp_path / "operators.so"
    binary = Path(batchnorm_torch.LIBRARY).read_bytes()
    version, other = bn.__version__.encode(), "9" * len(bn.__version__)
    assert binary.count(b"\0" + version + b"\0") == 1
    copied.write_bytes(binary.replace(b"\0" + version + b"\0", b"\0" + other.encode() + b"\0"))
    run = imported(tmp_path, f"LIBRARY = {str(copied)!r}")
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: batchnorm-torch {other} is of another version than batchnorm {bn.__version__}: install "
        f"batchnorm-torch=={bn.__version__}, or remove it"
    )


@pytest.mark.parametrize("content", [None, b"text"])
def test_a_library_that_cannot_be_loaded_is_told(tmp_path: Path, content: bytes | None) -> None:
    library = tmp_path / "operators.so"
    if content is not None:
        library.write_bytes(content)
    run = imported(tmp_path, f"LIBRARY = {str(library)!r}")
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: batchnorm-torch could not be loaded: {library}: ")


def test_the_operators_can_be_left_out(tmp_path: Path) -> None:
    run = imported(tmp_path, "LIBRARY = 'none'", BATCHNORM_TORCH_OPERATORS="0")
    assert run.stdout == "False\n", run.stderr
