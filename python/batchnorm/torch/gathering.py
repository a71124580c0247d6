# SPDX-License-Identifier: Apache-2.0
"""Rows of numbers that the processes of a group give each other, each with what it is about.

The first message of a step has one length whatever the layer: a head, and as much of the row as there is room for. So
processes that disagree meet, and all of them say so; a row of another length would end the back end, or its reader
would wait. Only what is longer takes a second message, when the heads are known to be the same.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from .._core.arrays import Doubles

FORWARD, BACKWARD = 0, 1
STEPS = "a forward pass", "a backward pass"
GRADIENTS = "no gradient", "gradients of parameters alone", "gradients"
DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16

# A message of so many numbers takes gloo no longer than one of eight: all of 512 channels.
_ROOM = 3 * 512


class Head(NamedTuple):
    """All that has to be the same in a step."""

    channels: int
    dtype: Any
    eps: float
    gradient: int  # of GRADIENTS: those that wait for each other in the backward pass
    step: int = FORWARD

    def numbers(self) -> list[float]:
        known = DTYPES.index(self.dtype) if self.dtype in DTYPES else len(DTYPES)
        return [self.channels, known, self.eps, self.gradient, self.step]


_HEAD = len(Head._fields) + 1  # and the number of bytes of a refusal


def gathered(group: Any, head: Head, row: Callable[[], Doubles]) -> Doubles:
    """The rows of all processes, in their order: an array of shape (processes, ...).

    An exception of `row`, which computes this one's, is an error of all of them.
    """
    own, refusal, numbers = torch.zeros(_HEAD + _ROOM, dtype=torch.float64), None, np.empty(0)
    own[1:_HEAD] = torch.tensor(head.numbers(), dtype=torch.float64)
    try:
        numbers = row()
        flat = torch.from_numpy(numbers.reshape(-1))
        own[_HEAD : _HEAD + flat.numel()] = flat[:_ROOM]
    except Exception as error:  # the others wait for this one, whatever it is
        refusal = error
        text = f"{type(error).__name__}: {error}".encode()[: 8 * _ROOM]
        own[0] = len(text)
        own[_HEAD:].numpy().view(np.uint8)[: len(text)] = np.frombuffer(text, np.uint8)
    found = _all(group, own)
    told = np.ascontiguousarray(found[:, :_HEAD])
    if told[:, 0].any() or (told != told[0]).any():
        raise ValueError(_disagreement(group, found)) from refusal
    parts = [found[:, _HEAD : _HEAD + numbers.size]]
    if numbers.size > _ROOM:
        parts.append(_all(group, flat[_ROOM:].contiguous()))
    return np.concatenate(parts, 1).reshape(-1, *numbers.shape)


def _all(group: Any, own: Tensor) -> Doubles:
    """The message of each process, by the collective that all back ends have."""
    found = torch.empty(distributed.get_world_size(group), own.numel(), dtype=own.dtype)
    try:
        distributed.all_gather(list(found.unbind()), own, group=group)
    except RuntimeError as error:
        raise RuntimeError(
            f"SyncBatchNorm could not exchange statistics with the {len(found)} processes of its group: one of them "
            f"has ended, did not come in time, or the back end takes no tensors of the CPU ({error})"
        ) from error
    result: Doubles = found.numpy()
    return result


def _disagreement(group: Any, found: Doubles) -> str:
    """The sentence for processes that have different heads, or refuse their part."""
    ranks = distributed.get_process_group_ranks(group)
    differs = (found != found[0]).any(0)[1:_HEAD]
    heads: dict[str, list[int]] = {}
    refusals = []
    for rank, message in zip(ranks, found):
        heads.setdefault(_said(message[1:_HEAD], differs), []).append(rank)
        if size := int(message[0]):
            text = message[_HEAD:].view(np.uint8)[:size].tobytes().decode(errors="replace")
            refusals.append(f"; rank {rank} refuses it: {text}")
    of_ranks = (
        f"{'ranks' if those[1:] else 'rank'} {', '.join(map(str, those))} {'have' if those[1:] else 'has'} {head}"
        for head, those in heads.items()
    )
    return f"SyncBatchNorm cannot take this batch: {'; '.join(of_ranks)}{''.join(refusals)}"


def _said(numbers: Doubles, differs: Any) -> str:
    """What one process has: its channels and dtype, and what else is not the same everywhere."""
    channels, dtype, _, gradient, step = map(int, numbers)
    kind = str(DTYPES[dtype]).partition(".")[2] if dtype < len(DTYPES) else "another dtype"
    said = [f"{channels} channels of {kind}", f"eps {numbers[2]:g}", GRADIENTS[gradient], STEPS[step]]
    is_told = [True, *differs[2:]]
    return ", ".join(part for part, told in zip(said, is_told) if told)
