# SPDX-License-Identifier: Apache-2.0
"""The same bits for every instruction set and number of threads; and what cannot be honoured is an error."""

from __future__ import annotations

import pytest
from helpers import python

import batchnorm as bn

ISAS = ["baseline", "avx2", "avx512"]

# Prints a digest for each case, over every output. Large enough cases use several threads.
DIGESTS = """
import itertools
import numpy as np
import batchnorm as bn
from helpers import LAYOUTS, digest

SHAPES = [(2, 1), (5, 3), (300, 7), (64, 130), (9, 4, 1), (6, 5, 7, 7), (3, 33, 5, 3), (2, 64, 56, 56),
          (1, 2, 300, 301), (8192, 64), (33, 17, 29), (16, 256, 7, 7)]
print(bn.isa(), bn.get_num_threads())
for shape, layout, dtype in itertools.product(SHAPES, ["C", "channels last", "channels first", "first channels"],
                                              ["f4", "f8"]):
    rng = np.random.default_rng(len(shape))
    x, dy = (LAYOUTS[layout](a) for a in (rng.normal(size=(2, *shape)) + 3).astype(dtype))
    gamma, beta, mean, var = (rng.normal(size=(4, shape[1])) ** 2).astype(dtype)
    y, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var)
    outputs = [y, saved.mean, saved.invstd, mean, var, *bn.backward(dy, x, saved)]
    outputs += [bn.forward_inference(x, gamma, beta, running_mean=mean, running_var=var)]
    outputs += [*bn.backward(dy, x, bn.frozen_statistics(mean, var, gamma=gamma)), *bn.moments(x)]
    outputs += [*bn.backward_reduce(dy, x, saved.mean, saved.invstd)]
    assert not any(np.isnan(output).any() for output in outputs)
    print(shape, layout, dtype, digest(outputs))
"""

# The same with a NaN in each kind of input, in a channel of its own: what follows from it is NaN, and nothing else is.
NANS = """
import itertools
import numpy as np
import batchnorm as bn
from helpers import LAYOUTS, digest

SHAPES = [(300, 7), (64, 130), (6, 7, 7, 7), (9, 33, 5), (2, 64, 56, 56)]
IN_X, INFINITE, IN_GAMMA, IN_BETA, IN_DY, IN_MEAN, CLEAN = range(7)
print(bn.isa(), bn.get_num_threads())
for shape, layout, dtype in itertools.product(SHAPES, ["C", "channels last", "first channels"], ["f4", "f8"]):
    rng = np.random.default_rng(len(shape))
    plain_x, plain_dy = rng.normal(size=(2, *shape)).astype(dtype)
    gamma, beta, mean, var = (rng.normal(size=(4, shape[1])) ** 2).astype(dtype)
    middle = tuple(n // 2 for n in shape[2:])
    plain_x[(1, IN_X, *middle)] = plain_dy[(1, IN_DY, *middle)] = np.nan
    plain_x[(1, INFINITE, *middle)] = np.inf
    gamma[IN_GAMMA] = beta[IN_BETA] = mean[IN_MEAN] = np.nan
    x, dy = LAYOUTS[layout](plain_x), LAYOUTS[layout](plain_dy)

    def check(result, *channels):
        places = np.zeros(result.shape, bool)
        np.moveaxis(places, 1 if places.ndim > 1 else 0, 0)[list(channels)] = True
        assert np.array_equal(np.isnan(result), places), (shape, layout, dtype, channels)

    outputs = [bn.forward_inference(x, gamma, beta, running_mean=mean, running_var=var)]
    elsewhere = outputs[0].copy()
    assert np.isnan(elsewhere[(1, IN_X, *middle)])
    elsewhere[(1, IN_X, *middle)] = 0
    check(elsewhere, IN_GAMMA, IN_BETA, IN_MEAN)
    y, saved = bn.forward_training(x, gamma, beta, running_mean=mean, running_var=var)
    check(y, IN_X, INFINITE, IN_GAMMA, IN_BETA)
    check(saved.mean, IN_X)
    check(saved.invstd, IN_X, INFINITE)
    check(mean, IN_X, IN_MEAN)
    check(var, IN_X, INFINITE)
    dx, dgamma, dbeta = bn.backward(dy, x, saved)
    check(dx, IN_X, INFINITE, IN_GAMMA, IN_DY)
    check(dgamma, IN_X, INFINITE, IN_DY)
    check(dbeta, IN_DY)
    outputs += [y, saved.mean, saved.invstd, mean, var, dx, dgamma, dbeta]
    outputs += [*bn.backward(dy, x, bn.frozen_statistics(mean, var, gamma=gamma)), *bn.moments(x)]
    outputs += [*bn.backward_reduce(dy, x, saved.mean, saved.invstd)]
    print(shape, layout, dtype, digest(outputs))
"""


def digests_of(code: str, count: int) -> list[str]:
    done = python(code, BATCHNORM_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == len(set(lines)) == count
    return lines


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return digests_of(DIGESTS, 96)


@pytest.fixture(scope="module")
def digests_with_nans() -> list[str]:
    return digests_of(NANS, 30)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_the_same_bits(digests: list[str], isa: str, threads: int) -> None:
    compare(DIGESTS, isa, threads, digests)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_the_same_nans(digests_with_nans: list[str], isa: str, threads: int) -> None:
    compare(NANS, isa, threads, digests_with_nans)


def compare(code: str, isa: str, threads: int, expected: list[str]) -> None:
    done = python(code, BATCHNORM_ISA=isa, BATCHNORM_NUM_THREADS=str(threads))
    if "BATCHNORM_ISA" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{isa} {threads}", *expected]


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
    with pytest.raises(ValueError, match="n is 2147483647, "):  # a C int holds it, and the message has it as it is
        bn.set_num_threads(2**31 - 1)
    for beyond in (2**31, -(10**30), 10**30):  # one does not, which would cut it down
        with pytest.raises(ValueError, match=f"n is {beyond}, expected 1 to 1024, or 0 for the default"):
            bn.set_num_threads(beyond)
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
