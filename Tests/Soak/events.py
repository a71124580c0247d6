# SPDX-License-Identifier: Apache-2.0
"""Events that may happen to a layer between two steps, without any change of its state."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import batchnorm as bn
import numpy as np

if TYPE_CHECKING:
    from life import Life


def through_a_state(life: Life) -> None:
    made = life.made()
    made.load_state_dict(life.layer.state_dict())
    life.layer = made


def through_a_file(life: Life) -> None:
    file = io.BytesIO()
    np.savez(file, **life.layer.state_dict())
    file.seek(0)
    with np.load(file) as state:
        life.layer.load_state_dict(state)


def through_a_pickle(life: Life) -> None:
    life.layer = pickle.loads(pickle.dumps(life.layer, int(life.rng.integers(2, 6))))


def through_a_copy(life: Life) -> None:
    life.layer = copy.deepcopy(life.layer)


def through_other_types(life: Life) -> None:
    """Doubles hold whatever the layer has, which comes back."""
    life.layer = life.layer.astype(np.float64).to(life.kind)


def through_evaluation(life: Life) -> None:
    life.layer.eval()
    life.layer(np.zeros(life.x_shape(), life.kind))
    life.layer.train()


def refused(life: Life) -> None:
    """Errors of all kinds; the layer is as it was."""
    layer, shape = life.layer, life.x_shape()
    wrong: list[Callable[[], Any]] = [
        lambda: layer(np.zeros((life.shape[1] + 1,) * 4, life.kind)),
        lambda: layer(np.zeros(shape, np.complex64)),
        lambda: layer(np.zeros(shape, life.kind), residual=np.zeros((*shape, 2), life.kind)),
        lambda: layer(np.zeros(shape, life.kind), weights=np.full((7, 7, 7), -1)),
        lambda: layer.load_state_dict({"weight": layer.gamma}),
        lambda: setattr(layer, "momentum", 2),
        lambda: setattr(layer, "gammma", 2),
    ]
    work = wrong[life.rng.integers(len(wrong))]
    try:
        work()
    except (ValueError, TypeError, AttributeError, bn.StateError):
        return
    raise AssertionError("what is wrong was taken")


def with_other_threads(life: Life) -> None:
    bn.set_num_threads(int(life.rng.integers(1, 4)))


def looked_at(life: Life) -> None:
    repr(life.layer), list(life.layer.named_parameters()), life.layer.zero_grad()


EVENTS: list[Callable[[Life], None] | None] = [
    None,
    None,
    None,
    through_a_state,
    through_a_file,
    through_a_pickle,
    through_a_copy,
    through_other_types,
    through_evaluation,
    refused,
    with_other_threads,
    looked_at,
]


def aside(work: Callable[[], None]) -> None:
    """In another thread."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
