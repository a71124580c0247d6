# SPDX-License-Identifier: Apache-2.0
"""The operators of batchnorm-torch in PyTorch's hands: its own checks, derivatives, graphs, threads, memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from torch_operators import Case, arguments, bn_ops, bt, last, same, step, torch


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
