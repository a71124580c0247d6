# SPDX-License-Identifier: Apache-2.0
"""The demo and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import batchnorm as bn
from batchnorm.cli import main
from batchnorm.cli.demo import PACKAGES as DEMO_PACKAGES

for package in DEMO_PACKAGES:
    pytest.importorskip(package)

from matplotlib.image import imread  # noqa: E402

from batchnorm.demo import QUICK, Settings, best_with_batch_norm, train_all  # noqa: E402
from batchnorm.demo.mistake import statistics_restored  # noqa: E402
from batchnorm.demo.network import Array, Dense, Network, cross_entropy  # noqa: E402
from batchnorm.demo.report import HEADER, summary  # noqa: E402
from batchnorm.demo.training import Record  # noqa: E402


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter, in the folder that this package was imported from."""
    home = Path(bn.__file__).parents[1]
    return subprocess.run([sys.executable, *arguments], cwd=home, capture_output=True, text=True, check=False)


def record(rate: float, *, batch_norm: bool, loss: list[float], accuracy: list[float], seed: int = 0) -> Record:
    network = Network((2, 2, 2), np.random.default_rng(seed), batch_norm=batch_norm)
    return Record(rate, batch_norm, seed, network, loss, accuracy, [0.004] * len(loss))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().split("   ") if cell.strip()]


# The network


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("batch_norm", [True, False], ids=["with", "without"])
def test_gradients_are_finite_differences(batch_norm: bool, training: bool) -> None:
    rng = np.random.default_rng(7)
    network = Network((5, 7, 6, 3), rng, batch_norm=batch_norm, dtype=np.float64)
    x, labels = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    network(x)  # moves the running statistics away from 0 and 1
    if not training:
        network.eval()

    def loss() -> float:
        return cross_entropy(network(x), labels)[0]

    dx = network.backward(cross_entropy(network(x), labels)[1])
    checked: list[tuple[Array, Array]] = [(value, gradient.copy()) for value, gradient in network.parameters()]
    step = 1e-6
    for value, gradient in [*checked, (x, dx)]:
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + step
            above = loss()
            value[index] = kept - step
            below = loss()
            value[index] = kept
            # rounding of the loss: 2^-52 / step; curvature: step^2
            assert gradient[index] == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)


def test_both_kinds_start_from_the_same_weights() -> None:
    kinds = [Network((4, 3, 2), np.random.default_rng(1), batch_norm=batch_norm) for batch_norm in (False, True)]
    without, with_norm = ([layer for layer in network.layers if isinstance(layer, Dense)] for network in kinds)
    for one, other in zip(without, with_norm):
        np.testing.assert_array_equal(one.weight, other.weight)


def test_training_is_repeatable() -> None:
    settings = Settings(seeds=1, epochs=1, learning_rates=(0.1,))
    first, second = train_all(settings), train_all(settings)
    assert [run.loss for run in first] == [run.loss for run in second]


def test_running_statistics_are_restored() -> None:
    network = Network((4, 3, 2), np.random.default_rng(1), batch_norm=True)
    (norm,) = network.norms
    before = norm.state_dict()
    with statistics_restored(network):
        network(np.random.default_rng(2).standard_normal((8, 4)).astype(np.float32))
        assert not np.array_equal(norm.state_dict()["running_mean"], before["running_mean"])
    for key, value in norm.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


# The report


def test_table_has_a_row_for_each_rate_and_kind() -> None:
    text = summary(
        [
            record(0.1, batch_norm=False, loss=[1.0, 0.5], accuracy=[0.96, 0.98], seed=0),
            record(0.1, batch_norm=False, loss=[1.0, 0.5], accuracy=[0.90, 0.96], seed=1),
            record(0.1, batch_norm=False, loss=[1.0, 0.5], accuracy=[0.90, 0.94], seed=2),
            record(0.1, batch_norm=True, loss=[1.0], accuracy=[0.5]),
            record(3.0, batch_norm=False, loss=[1.0, np.nan], accuracy=[0.5]),
            record(3.0, batch_norm=True, loss=[1.0, 0.5], accuracy=[0.5, 0.6], seed=0),
            record(3.0, batch_norm=True, loss=[np.inf], accuracy=[], seed=1),
        ]
    )
    header, _, *rows = map(cells, text.splitlines())
    assert header == list(HEADER)
    assert rows == [
        ["0.1", "without", "96.0 ± 2.0 %", "2", "4.0"],
        ["0.1", "with", "50.0 %", "-", "4.0"],
        ["3", "without", "diverged", "-", "4.0"],
        ["3", "with", "1 of 2 diverged, else 60.0 %", "-", "4.0"],
    ]


def test_best_run_is_one_with_batch_norm_that_finished() -> None:
    worse = record(0.1, batch_norm=True, loss=[1.0], accuracy=[0.5])
    best = record(0.3, batch_norm=True, loss=[1.0], accuracy=[0.6])
    others = [
        record(0.1, batch_norm=False, loss=[1.0], accuracy=[0.9]),
        record(3.0, batch_norm=True, loss=[1.0, np.nan], accuracy=[0.8]),
    ]
    assert best_with_batch_norm([worse, best, *others]) is best
    assert best_with_batch_norm(others) is None


# The command line


def test_demo_prints_its_tables_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "digits.png"
    assert main(["demo", "--quick", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    rows = [cells(line)[:2] for line in printed.splitlines() if "with" in cells(line) or "without" in cells(line)]
    assert rows == [[f"{rate:g}", kind] for rate in QUICK.learning_rates for kind in ("without", "with")]
    assert "images per batch" in printed
    assert printed.splitlines()[-1] == f"The picture is in {output}"
    assert output.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert np.ptp(imread(output)) == 1.0  # from black to white


def test_demo_survives_divergence_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "digits.png"
    given = ["--seeds", "1", "--epochs", "2", "--learning-rates", "1e30"]
    assert main(["demo", *given, "--output", str(output)]) == 0
    assert capsys.readouterr().out.count("diverged") == 2
    assert output.is_file()


def test_info_names_the_library() -> None:
    done = python("-m", "batchnorm", "info")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert shown.keys() == {"version", "isa", "threads", "library"}
    assert shown["version"] == bn.__version__
    assert Path(shown["library"]).is_file()


def test_environment_that_cannot_be_honoured_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHNORM_ISA", "abacus")
    done = python("-m", "batchnorm", "info")
    assert (done.returncode, done.stdout) == (1, "")
    assert "abacus" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", DEMO_PACKAGES)
def test_missing_package_is_one_sentence(package: str) -> None:
    block = f"import sys; sys.modules[{package!r}] = None; from batchnorm.cli import main; sys.exit(main(['demo']))"
    done = python("-c", block)
    assert done.returncode == 1
    needed = DEMO_PACKAGES[package]
    assert done.stderr == f"batchnorm demo: this needs {needed}: pip install scikit-learn matplotlib tqdm\n"


def test_output_is_checked_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output in (tmp_path, tmp_path / "missing" / "digits.png"):
        assert main(["demo", "--output", str(output)]) == 1
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", f"batchnorm demo: no file can be written at {output}\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["train"], ["demo", "--epochs", "0"], ["demo", "--seeds", "one"], ["demo", "--learning-rates", "-1"]],
    ids=" ".join,
)
def test_misunderstood_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert capsys.readouterr().err.startswith("usage: batchnorm")
