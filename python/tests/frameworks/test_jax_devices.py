# SPDX-License-Identifier: Apache-2.0
"""A batch over 1, 2 and 4 devices, of a process of their own: the same bits, and those of the whole batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python
from in_jax import jax
from jax_formulas import near

CODE = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
NAMES = "y", "mean", "var", "dx", "dgamma", "dbeta"


@pytest.fixture(scope="module")
def found() -> Any:
    assert jax.devices()[0].platform == "cpu"
    run = python(
        CODE.replace("import runpy", "import warnings; warnings.simplefilter('ignore'); import runpy"),
        str(Path(__file__).parent / "jax_devices.py"),
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
        JAX_PLATFORMS="cpu",
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_bits_do_not_depend_on_the_devices(found: Any) -> None:
    """y, the statistics and dx; dgamma and dbeta are added up by JAX, rounded."""
    cases = {case: results for case, results in found.items() if "(" in case}
    assert len(cases) == 5
    for case, results in cases.items():
        assert len(results) == 13
        for name, result in results.items():
            for place, part in enumerate(NAMES[:4]):
                if "reproducible" in name:
                    assert result[place] == results[name.replace(name[0], "1", 1)][place], (case, name, part)
                # Moments per device are as exact, and their last bit is not seen in the outputs of these batches.
                assert result[place] == results["whole"][place], (case, name, part)


def test_every_bit_of_float64(found: Any) -> None:
    """Moments per sample do not depend on the devices that compute them: here is no rounding that hides it."""
    one, two, four = ([bytes.fromhex(each) for each in result[:4]] for result in found["float64"])
    assert one == two == four


def test_parameters_have_the_sums_of_their_gradients(found: Any) -> None:
    for case, results in found.items():
        if "(" in case:
            for result in results.values():
                for place in (4, 5):
                    mine, whole = (np.frombuffer(bytes.fromhex(r[place]), "f4") for r in (result, results["whole"]))
                    assert abs(mine - whole).max() <= 1e-6 * abs(whole).max(), (case, NAMES[place])


def test_second_derivatives(found: Any) -> None:
    for devices in ("2", "4"):
        for mine, whole in zip(found["second"][devices], found["second"]["whole"]):
            near(np.array(mine), np.array(whole))


def test_parameters_have_to_be_the_same_everywhere(found: Any) -> None:
    assert found["refused"].startswith("gamma varies over 'rows'; expected the same on every device")
