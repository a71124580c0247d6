# SPDX-License-Identifier: Apache-2.0
"""The library's messages reach a Python user in Python's words; so do Python's own messages about arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, both

import batchnorm as bn
from batchnorm._core.messages import in_python

# Words of C, of the header's structures, and of private classes.
OF_C = re.compile(r"NULL|bn_|BN_|->|pointer|sizeof|[A-Z]+_MAX|\b_[A-Za-z]|\bouter\b|\binner\b|; expected")
X = np.random.default_rng(20261205).normal(size=(4, 3, 5)).astype("f4")
ONES = np.ones(3, "f4")
FOUND = {
    "null": " is NULL",
    "set": " is given",
    "element": "[3] is -1",
    "overlap": " overlaps x",
    "address": " is 0x7f01",
}


def messages_of_the_library() -> Iterator[str]:
    """Every Failure of its sources, as it would be said."""
    for path in sorted((REPOSITORY / "Sources" / "BatchNorm").rglob("*.swift")):
        text = path.read_text(encoding="utf-8")
        for subject, expected in re.findall(r"Failure\(\s*BN_ERROR_\w+,(.*?)expected:(.*?)\)\s*\n", text, re.DOTALL):
            kind = re.search(r"\.(null|set|element|overlap|address)\b", subject)
            found = FOUND[kind[1]] if kind else " is 1"
            for what in re.findall(r'"([^"]*)"', expected):
                for name in re.findall(r'"([^"]*)"', subject) or ["x_stride"]:
                    yield f"bn_forward_training: {name}{found}; expected {what}"


def test_every_message_of_the_library() -> None:
    messages = list(messages_of_the_library())
    assert len(messages) > 50
    names = [
        name
        for path in (REPOSITORY / "Sources" / "BatchNorm").rglob("*.swift")
        for name in re.findall(
            r'"((?:options|shape|epilogue|running|source|groups|weights)->\w+)"', path.read_text("utf-8")
        )
    ]
    assert len(names) > 30
    messages += [f"bn_backward: {name} is NULL; expected a pointer" for name in names]
    assert [said for said in map(in_python, messages) if OF_C.search(said)] == []


ONE = np.ones((1, 3), "f4")


def overlapping() -> Any:
    return bn.forward_training(X[:3], out=X[1:])


def misaligned() -> Any:
    scattered = np.zeros(13, "u1")[1:].view("f4")
    return bn.forward_training(X, running_mean=scattered, running_var=ONES)


# Mistakes of users, and the message about each.
PROVOKED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bn.BatchNorm2d(4, eps=-1), ValueError, "^eps is -1, expected a finite number"),
    (lambda: bn.BatchNorm2d(4, momentum=1.5), ValueError, "^momentum is 1.5, expected a number from 0 to 1"),
    (lambda: bn.forward_training(X, eps=-1), ValueError, "^eps is -1, expected"),
    (lambda: bn.inverse_std([1], [1], eps=np.inf), ValueError, "^eps is inf, expected"),
    (lambda: bn.forward_training(X, momentum=2), ValueError, "^momentum is 2, expected"),
    (lambda: bn.forward_training(X, running_mean=ONES), ValueError, "^running_var is None, expected both running_mean"),
    (lambda: bn.forward_training(X, running_var=ONES), ValueError, "^running_mean is None, expected both running_mean"),
    (lambda: bn.forward_training(ONE), ValueError, r"^x has one value per channel, .* eval\(\)"),
    (lambda: bn.BatchNorm1d(3)(ONE), ValueError, r"^x has one value per channel, .* eval\(\)"),
    (
        lambda: bn.forward_training(ONE, **both((ONES, ONES + 1)), running=bn.Running()),
        ValueError,
        r"one value per channel, .* eval\(\)",
    ),
    (
        lambda: bn.forward_training(np.ones((4, 3), "f4"), groups=bn.Segments([0, 1, 1, 1], 2)),
        ValueError,
        r"group 0 has one value per channel, .* eval\(\)",
    ),
    (lambda: bn.forward_training(X, weights=np.eye(1, 20).reshape(4, 5)), ValueError, "^weights are above 0 at one"),
    (
        lambda: bn.forward_training(X, weights=np.full((4, 5), 0.01), **both((ONES, ONES + 1))),
        ValueError,
        "^the sum of the weights is 0.2, expected 0 or more than 1",
    ),
    (overlapping, ValueError, "^out overlaps x, expected memory of its own"),
    (
        lambda: bn.forward_training(X, running_mean=ONES, running_var=ONES),
        ValueError,
        "^running_var overlaps running_mean|^running_mean overlaps running_var",
    ),
    (misaligned, ValueError, "^running_mean is misaligned, expected an address that is a multiple of 4"),
    (lambda: bn.forward_training(X, activation=bn.LeakyReLU(1e-300)), ValueError, "^slope is 1e-300, expected 0, or a"),
    (
        lambda: bn.forward_training(X * np.inf, **both((ONES, ONES + 1)), running=bn.Running(nonfinite="error")),
        ValueError,
        "^the variance of x in channel 0 is",
    ),
    (lambda: bn.set_num_threads(5000), ValueError, "^n is 5000, expected 1 to 1024"),
    (lambda: bn.set_num_threads(-1), ValueError, "^n is -1, expected 1 to 1024"),
    (
        lambda: bn.update_running(ONES.copy(), ONES.copy(), [1.0] * 3, [0.0] * 3, [0.0] * 3),
        ValueError,
        r"^count\[0\] is 1, expected 0 or more than 1",
    ),
    (lambda: bn.BatchNorm2d(4, epsilon=1e-3), TypeError, "BatchNorm2d|__init__"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize("case", range(len(PROVOKED)))
def test_what_a_user_reads(case: int) -> None:
    call, error, message = PROVOKED[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert not OF_C.search(str(caught.value)), caught.value


def test_methods_name_public_classes() -> None:
    names = [(room, name) for room in (bn, bn.interop.keras) for name in room.__all__]
    kinds = [kind for room, name in names if isinstance(kind := getattr(room, name), type)]
    assert len(kinds) > 20
    public = {kind.__name__ for kind in kinds}
    wrong = []
    for kind in kinds:
        for _, method in inspect.getmembers(kind, inspect.isfunction):
            # Python 3.9 has a name of its own for what dataclasses make.
            is_ours = method.__module__.startswith("batchnorm") and "__create_fn__" not in method.__qualname__
            if is_ours and method.__qualname__.split(".")[0] not in public:
                wrong.append(method.__qualname__)
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (bn.BatchNorm2d, (4, 3), r"expected 4D input \(got 2D input\): BatchNorm1d takes 2D$"),
        (bn.LazyBatchNorm2d, (4, 3), "BatchNorm1d takes 2D$"),
        (bn.BatchNorm1d, (4, 3, 2, 2), "BatchNorm2d takes 4D$"),
        (bn.BatchNorm2d, (3, 2, 2), r"BatchNorm1d takes 3D; x\[np.newaxis\] makes a batch of one sample$"),
        (bn.BatchNorm3d, (1, 2, 3, 2, 2, 2), "BatchNorm takes any rank$"),
    ],
)
def test_another_rank(kind: Any, shape: tuple[int, ...], message: str) -> None:
    layer = kind() if "Lazy" in kind.__name__ else kind(3)
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, "f4"))


def test_bits_of_bfloat16() -> None:
    with pytest.raises(TypeError, match=r"x has dtype uint16, expected .* array\.view\('V2'\)"):
        bn.forward_training(np.zeros((2, 3), "u2"))


def test_a_key_error_shows_its_sentence() -> None:
    state = bn.BatchNorm(3).state_dict()
    without = {key: state[key] for key in state if key != "running_var"}
    for take in (bn.BatchNorm(3).load_state_dict, lambda wrong: bn.from_state(wrong, "pytorch")):
        for wrong, message in ((without, "running_var is missing"), ({**state, "scale": ONES}, "scale is unexpected")):
            with pytest.raises(KeyError) as caught:
                take(wrong)
            assert str(caught.value).startswith(message)
