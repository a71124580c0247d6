# SPDX-License-Identifier: Apache-2.0
"""Threads of the caller's, and fork() after the library's own threads have been at work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from helpers import python

import batchnorm as bn

FORK = """
import os, sys, warnings
import numpy as np
import batchnorm as bn

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork() in a process with threads
bn.set_num_threads(4)
x = np.random.default_rng(0).normal(size=(16, 64, 32, 32)).astype("f4")
expected, saved = bn.forward_training(x)
gradient, _, _ = bn.backward(x, x, saved)

def right():
    y, saved = bn.forward_training(x)
    return np.array_equal(y, expected) and np.array_equal(bn.backward(x, x, saved)[0], gradient)

assert right()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if right() else 1)
        fine = right() and os.waitpid(grandchild, 0)[1] == 0
        bn.set_num_threads(2)
        os._exit(0 if fine and right() else 1)
    children.append(child)
assert right()
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert right()
print("right")
"""


def test_fork() -> None:
    done = python(FORK)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_calls_from_several_threads(rng: np.random.Generator) -> None:
    bn.set_num_threads(4)
    batches = [rng.normal(size=(8, 16 * n, 20, 20)).astype("f4") for n in range(1, 5)]
    expected = [bn.forward_training(x)[0] for x in batches]

    def right(n: int) -> bool:
        return np.array_equal(bn.forward_training(batches[n % 4])[0], expected[n % 4])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(right, range(60)))


def test_messages_are_of_the_thread_that_failed() -> None:
    def message(n: int) -> bool:
        try:
            bn.forward_training(np.zeros((2, 2)), eps=-float(n + 1))
        except ValueError as error:
            return f"-{n + 1}" in str(error)
        return False

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(message, range(300)))
