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
    reproducible: bool
    step: int = FORWARD

    def numbers(self) -> list[float]:
        known = DTYPES.index(self.dtype) if self.dtype in DTYPES else len(DTYPES)
        return [self.channels, known, self.eps, self.gradient, self.reproducible, self.step]


# Before it stand the number of bytes of a refusal, and the number of rows.
_FIRST, _HEAD = 2, 2 + len(Head._fields)


def are_several(group: Any) -> bool:
    """True if there are others to exchange with."""
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    size = distributed.get_world_size(group)
    if size < 1:
        raise RuntimeError("this process is not in the process_group of a SyncBatchNorm that it calls")
    return size > 1


def rank_in(group: Any) -> int:
    """The place of this process in the group."""
    return distributed.get_rank(group) if are_several(group) else 0


def gathered(group: Any, head: Head, compute: Callable[[], Doubles]) -> list[Doubles]:
    """The rows of each process, in their order: arrays of shape (rows, k, channels), whose numbers of rows may differ.

    An exception of `compute`, which has this one's, is an error of all of them.
    """
    if not are_several(group):
        return [compute()]
    own, refusal, rows = torch.zeros(_HEAD + _ROOM, dtype=torch.float64), None, np.empty((0, 0, 0))
    own[_FIRST:_HEAD] = torch.tensor(head.numbers(), dtype=torch.float64)
    try:
        rows = compute()
        own[1] = len(rows)
        start = rows.reshape(-1)[:_ROOM]
        own[_HEAD : _HEAD + start.size] = torch.from_numpy(start)
    except Exception as error:  # the others wait for this one, whatever it is
        refusal = error
        text = f"{type(error).__name__}: {error}".encode()[: 8 * _ROOM]
        own[0] = len(text)
        own[_HEAD:].numpy().view(np.uint8)[: len(text)] = np.frombuffer(text, np.uint8)
    found = _all(group, own)
    heads = np.ascontiguousarray(found[:, _FIRST:_HEAD])
    if found[:, 0].any() or (heads != heads[0]).any():
        raise ValueError(_disagreement(group, found)) from refusal
    sizes, told = (found[:, 1].astype(int) * rows.shape[1] * rows.shape[2]).tolist(), found[:, _HEAD:]
    left = max(sizes) - _ROOM
    if left > 0:
        rest = torch.zeros(left, dtype=torch.float64)
        end = torch.from_numpy(rows.reshape(-1)[_ROOM:])
        rest[: end.numel()] = end
        told = np.concatenate([told, _all(group, rest)], 1)
    return [numbers[:size].reshape(-1, *rows.shape[1:]) for numbers, size in zip(told, sizes)]


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
    differs = (found != found[0]).any(0)[_FIRST:_HEAD]
    heads: dict[str, list[int]] = {}
    refusals = []
    for rank, message in zip(ranks, found):
        heads.setdefault(_said(message[_FIRST:_HEAD], differs), []).append(rank)
        if size := int(message[0]):
            text = message[_HEAD:].view(np.uint8)[:size].tobytes().decode(errors="replace")
            refusals.append(f"; rank {rank} refuses it: {text}")
    of_ranks = (
        f"{'ranks' if those[1:] else 'rank'} {', '.join(map(str, those))} {'have' if those[1:] else 'has'} {head}"
        for head, those in heads.items()
    )
    return f"SyncBatchNorm cannot take this batch: {'; '.join(of_ranks)}{''.join(refusals)}"


def _said(numbers: Doubles, differs: Any) -> str:
    """The words for one process: its channels and dtype, and all that is not the same everywhere."""
    channels, dtype, gradient, reproducible, step = map(int, np.delete(numbers, 2))
    kind = str(DTYPES[dtype]).partition(".")[2] if dtype < len(DTYPES) else "another dtype"
    said = [f"{channels} channels of {kind}", f"eps {numbers[2]:g}", GRADIENTS[gradient]]
    said += ["reproducible" if reproducible else "not reproducible", STEPS[step]]
    is_told = [True, *differs[2:]]
    return ", ".join(part for part, told in zip(said, is_told) if told)
