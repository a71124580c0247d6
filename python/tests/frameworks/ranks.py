# SPDX-License-Identifier: Apache-2.0
"""Processes of torch.distributed, which run functions of the tests over gloo, and answer what these return."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from in_torch import torch

PATIENCE = 120  # seconds until a process counts as hanging


class FailedError(Exception):
    """An exception of a process: the name of its class, and its text."""

    def __init__(self, kind: str, text: str, trace: str = "") -> None:
        super().__init__(kind, text, trace)
        self.kind, self.text = kind, text


class Ranks:
    """`size` processes; functions run on the first of them, in a group of these."""

    def __init__(self, size: int, folder: Path, timeout: float = PATIENCE) -> None:
        context = multiprocessing.get_context("spawn")
        self.size, self.pipes, self.processes = size, [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            told = (rank, size, str(folder / "meeting"), timeout, theirs)
            process = context.Process(target=serve, args=told, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, size: int, function: Callable[..., Any], *given: Any) -> list[Any]:
        """The results of function(group, rank, ...), or what was raised, by rank."""
        for pipe in self.pipes[:size]:
            pipe.send_bytes(pickle.dumps((size, function, given)))  # send() would move the tensors elsewhere
        return [self._answer(rank) for rank in range(size)]

    def _answer(self, rank: int) -> Any:
        if not self.pipes[rank].poll(PATIENCE):
            raise AssertionError(f"rank {rank} hangs")
        try:
            return pickle.loads(self.pipes[rank].recv_bytes())
        except EOFError:
            return None  # it has ended

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            process.kill()


def serve(rank: int, size: int, meeting: str, timeout: float, pipe: Connection) -> None:
    """Runs what comes through the pipe until it is closed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed = torch.distributed
    meet = {"init_method": f"file://{meeting}", "timeout": timedelta(seconds=PATIENCE)}
    distributed.init_process_group("gloo", rank=rank, world_size=size, **meet)
    distributed.barrier()
    wait = timedelta(seconds=timeout)
    groups = [distributed.new_group(range(n), timeout=wait) for n in range(1, size + 1)]
    while True:
        try:
            count, function, given = pickle.loads(pipe.recv_bytes())
        except EOFError:
            os._exit(0)  # without goodbyes to processes that may have ended
        try:
            answer = function(groups[count - 1], rank, *given)
        except Exception as error:
            answer = FailedError(type(error).__name__, str(error), traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


def succeeded(answers: list[Any]) -> list[Any]:
    """The answers, none of which is an error."""
    for answer in answers:
        if isinstance(answer, FailedError):
            raise answer
    return answers
