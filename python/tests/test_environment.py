# SPDX-License-Identifier: Apache-2.0
"""The same bits for every instruction set and number of threads; and what cannot be honoured is an error."""

from __future__ import annotations

import pytest
from helpers import python

import batchnorm as bn

ISAS = ["baseline", "avx2", "avx512"]

# Prints a digest for each case, over every output. Large enough cases use several threads.
DIGESTS = """
import hashlib, itertools
import numpy as np
import batchnorm as bn
from helpers import LAYOUTS

SHAPES = [(2, 1), (5, 3), (300, 7), (64, 130), (9, 4, 1), (6, 5, 7, 7), (3, 33, 5, 3), (2, 64, 56, 56),
          (1, 2, 300, 301), (8192, 64), (33, 17, 29), (16, 256, 7, 7)]
print(bn.isa(), bn.get_num_threads())
for shape, layout, dtype in itertools.product(SHAPES, ["C", "channels last", "channels first", "first channels"],
                                              ["f4", "f8"]):
    rng = np.random.default_rng(len(shape))
    x, dy = (LAYOUTS[layout](a) for a in (rng.normal(size=(2, *shape)) + 3).astype(dtype))
    gamma, beta, mean, var = (rng.normal(size=(4, shape[1])) ** 2).astype(dtype)
    y, saved = bn.forward_training(x, gamma, beta, mean, var)
    outputs = [y, saved.mean, saved.invstd, mean, var, *bn.backward(dy, x, saved, gamma)]
    outputs += [bn.forward_inference(x, gamma, beta, mean, var)]
    outputs += [*bn.backward(dy, x, bn.frozen_statistics(mean, var), gamma), *bn.moments(x)]
    outputs += [*bn.backward_reduce(dy, x, saved.mean, saved.invstd)]
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(np.ascontiguousarray(output).tobytes())
    print(shape, layout, dtype, digest.hexdigest())
"""


@pytest.fixture(scope="module")
def digests() -> list[str]:
    done = python(DIGESTS, BATCHNORM_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 97
    assert len(set(lines)) == 97
    return lines[1:]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_the_same_bits(digests: list[str], isa: str, threads: int) -> None:
    done = python(DIGESTS, BATCHNORM_ISA=isa, BATCHNORM_NUM_THREADS=str(threads))
    if "BATCHNORM_ISA" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{isa} {threads}", *digests]


CALL = "import batchnorm as bn; bn.forward_training([[1.0], [2.0]])"


@pytest.mark.parametrize("call", [CALL, "import batchnorm as bn; bn.isa()"])
def test_an_unknown_instruction_set(call: str) -> None:
    done = python(call, BATCHNORM_ISA="avx1024")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: ")
    for word in ("BATCHNORM_ISA", "avx1024", *ISAS):
        assert word in last


@pytest.mark.parametrize("value", ["abc", "-1", "0", "1025", "2.5", "3 4", "99999999999999999999"])
@pytest.mark.parametrize("call", [CALL, "import batchnorm as bn; bn.get_num_threads()"])
def test_an_impossible_number_of_threads(call: str, value: str) -> None:
    last = python(call, BATCHNORM_NUM_THREADS=value).stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: ")
    assert "BATCHNORM_NUM_THREADS" in last
    assert value in last


def test_set_num_threads() -> None:
    default = bn.get_num_threads()
    for n in (1, 7, 1024):
        bn.set_num_threads(n)
        assert bn.get_num_threads() == n
    for wrong in (-1, 1025, 2**31, 2**32 + 1, -(2**40)):
        with pytest.raises(ValueError, match="1024"):
            bn.set_num_threads(wrong)
        assert bn.get_num_threads() == 1024
    with pytest.raises(TypeError):
        bn.set_num_threads(2.0)  # type: ignore[arg-type]
    bn.set_num_threads(0)
    assert bn.get_num_threads() == default


def test_openmp_s_variable_is_the_default() -> None:
    code = "import batchnorm as bn; print(bn.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="3").stdout == "3\n"
    assert python(code, OMP_NUM_THREADS="3", BATCHNORM_NUM_THREADS="2").stdout == "2\n"


def test_isa_is_one_of_the_names() -> None:
    assert bn.isa() in ISAS
