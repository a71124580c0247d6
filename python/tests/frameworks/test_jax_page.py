# SPDX-License-Identifier: Apache-2.0
"""The page about JAX, the examples in docstrings, and the example program."""

from __future__ import annotations

import doctest
import io
import re
from contextlib import redirect_stdout
from typing import Any

import pytest
from comparing import peer
from helpers import REPOSITORY, python
from in_jax import jax

import batchnorm.jax as bj

peer("flax.linen")
FENCE = re.compile(r"^```py\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def test_the_page() -> None:
    """docs/jax.md is one session, with JAX as it is by default."""
    page = REPOSITORY / "docs" / "jax.md"
    session: dict[str, Any] = {}
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    assert len(found) >= 5
    with jax.enable_x64(False):
        for code, output in found:
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile(code, str(page), "exec"), session)
            assert printed.getvalue() == output, code


def test_the_docstring() -> None:
    with jax.enable_x64(False):
        assert doctest.testmod(bj).failed == 0


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_example(devices: int) -> None:
    """It learns, and to the last digit that it prints the same on any number of devices."""
    code = f"import runpy; runpy.run_path({str(REPOSITORY / 'examples' / 'jax' / 'train.py')!r}, run_name='__main__')"
    flags = f"--xla_force_host_platform_device_count={devices}"
    run = python(f"import warnings; warnings.simplefilter('ignore'); {code}", XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    assert run.returncode == 0, run.stderr
    wanted = rf"{devices} devices: loss (\d\.\d{{3}}) -> (\d\.\d{{3}}), (\d+\.\d)% right\n"
    first, last, right = map(float, re.fullmatch(wanted, run.stdout).groups())  # type: ignore[union-attr]
    assert first > 1
    assert last < 0.1
    assert right > 95


def test_flax_is_imported_when_it_is_used() -> None:
    code = "import sys, batchnorm.jax as bj; assert 'flax' not in sys.modules; bj.linen; assert 'flax' in sys.modules"
    run = python(f"import warnings; warnings.simplefilter('ignore'); {code}")
    assert run.returncode == 0, run.stderr


def test_without_jax_and_flax() -> None:
    """Neither is missed by who looks at names; who asks for them hears why there are none."""
    missing = "import sys; sys.modules['jax'] = None; import batchnorm as bn; assert not hasattr(bn, 'jax')"
    assert python(missing).returncode == 0
    run = python("import sys; sys.modules['jax'] = None; import batchnorm.jax")
    assert "ImportError: batchnorm.jax needs JAX, which cannot be imported: " in run.stderr
    code = "import sys; sys.modules['flax'] = None; import batchnorm.jax as bj; assert not hasattr(bj, 'linen'); bj.nnx"
    run = python(f"import warnings; warnings.simplefilter('ignore')\n{code}")
    assert "AttributeError: module 'batchnorm.jax' has no attribute 'nnx': No module named 'flax" in run.stderr
