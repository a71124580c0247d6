# SPDX-License-Identifier: Apache-2.0
"""The demo and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchnorm as bn
from batchnorm.cli import main
from batchnorm.cli.demo import PACKAGES as DEMO_PACKAGES

for package in DEMO_PACKAGES:
    pytest.importorskip(package)

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.image import imread  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from PIL import Image  # noqa: E402

from batchnorm.demo.comparison import QUICK, Settings, best_with_batch_norm, train_all  # noqa: E402
from batchnorm.demo.mistake import BATCHES, Found, Shares, lesson, measure, statistics_restored  # noqa: E402
from batchnorm.demo.mistake_plot import draw, draw_shares, title  # noqa: E402
from batchnorm.demo.network import ACTIVATIONS, Array, Dense, Network, cross_entropy  # noqa: E402
from batchnorm.demo.report import HEADER, summary  # noqa: E402
from batchnorm.demo.training import Digits, Record  # noqa: E402


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


def without_affine(units: int) -> bn.BatchNorm:
    return bn.BatchNorm(units, affine=False, dtype=np.float64)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_norm": True},
        {"batch_norm": False},
        {"batch_norm": False, "first": without_affine},
        {"batch_norm": without_affine, "scale": 0.5},
        *({"batch_norm": True, "activation": each, "placement": "after"} for each in ("tanh", "sigmoid")),
        *({"batch_norm": True, "activation": each} for each in ACTIVATIONS),
    ],
    ids=lambda settings: " ".join(str(getattr(each, "__name__", each)) for each in settings.values()),
)
def test_gradients_are_finite_differences(settings: dict[str, Any], training: bool) -> None:
    rng = np.random.default_rng(7)
    network = Network((5, 7, 6, 3), rng, dtype=np.float64, **settings)
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


def kinds_of(network: Network) -> str:
    return " ".join(type(layer).__name__ for layer in network.layers)


def test_layers_stand_where_they_are_asked_for() -> None:
    def network(**settings: Any) -> Network:
        return Network((4, 3, 2), np.random.default_rng(1), **settings)

    assert kinds_of(network(batch_norm=False)) == "Dense Activation Dense"
    assert kinds_of(network(batch_norm=True)) == "Dense BatchNorm Activation Dense"
    assert kinds_of(network(batch_norm=True, placement="after")) == "Dense Activation BatchNorm Dense"
    first = network(batch_norm=bn.BatchNorm, first=without_affine)
    assert kinds_of(first) == "BatchNorm Dense BatchNorm Activation Dense"
    assert [norm.affine for norm in first.norms] == [False, True]
    assert len(list(first.parameters())) == 6  # of two dense layers and the one norm that has some
    halved, whole = (network(batch_norm=False, scale=scale) for scale in (0.5, 1.0))
    weights = [[layer.weight for layer in each.layers if isinstance(layer, Dense)] for each in (halved, whole)]
    np.testing.assert_array_equal(weights[0][0], weights[1][0] / 2)
    np.testing.assert_array_equal(weights[0][1], weights[1][1])  # that of the logits is as it was


def test_sigmoid_is_the_logistic_function_and_does_not_overflow() -> None:
    x = np.array([-1e4, -3.0, 0.0, 2.0, 1e4])
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(ACTIVATIONS["sigmoid"][0](x), expected, rtol=0, atol=2.0**-53)


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


# The classic mistake


def test_mistake_is_measured_on_a_network_that_is_left_as_it_was() -> None:
    (run,) = (each for each in train_all(Settings(1, 4, (0.3,))) if each.batch_norm)
    before = [norm.state_dict() for norm in run.network.norms]
    found = measure(run.network, Digits.split(0))
    for norm, state in zip(run.network.norms, before):
        assert not norm.training
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, state[key])
    assert [each.size for each in found.shares] == list(BATCHES)
    assert {each.right for each in found.shares} == {run.accuracy[-1]}  # neither size nor order matters in eval mode
    assert all(each.by_class < each.shuffled for each in found.shares)
    assert found.shares[0].shuffled < run.accuracy[-1] - 0.3
    assert found.spoiled < run.accuracy[-1] - 0.1


def test_lesson_and_picture_have_the_numbers_that_were_measured() -> None:
    found = Found("refused", [Shares(2, 0.433, 0.092, 0.978), Shares(64, 0.975, 0.3, 0.978)], 0.75)
    assert ["2", "43.3 %", "9.2 %", "97.8 %"] in [cells(line) for line in lesson(found).splitlines()]
    words = title(found.shares).split()
    assert [words[index] for index in range(len(words)) if words[index + 1 : index + 2] == ["%"]] == ["98", "43", "9"]
    axes = Figure().subplots()
    draw_shares(axes, found.shares)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["eval mode: right"], [97.8, 97.8])
    np.testing.assert_allclose(drawn["training mode, images shuffled"], [43.3, 97.5])
    np.testing.assert_allclose(drawn["training mode, images sorted by class"], [9.2, 30])
    # 97.5 would stand upon 97.8
    assert [text.get_text() for text in axes.texts] == ["98 %", "98 %", "43 %", "9 %", "30 %"]


def test_the_picture_of_the_mistake_says_what_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    shares = [Shares(2, 0.433, 0.092, 0.978), Shares(64, 0.975, 0.3, 0.978)]
    draw(shares, tmp_path / "mistake.png")
    words = [text.get_text() for text in figures[0].findobj(Text)]
    assert title(shares) in words
    assert any(each.startswith("The same trained network, the same 448 digits") for each in words)


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
    assert "`make live` builds .build-live/batchnorm-live.html" in printed
    second = tmp_path / "digits-eval.png"
    assert printed.splitlines()[-2:] == [f"A picture is in {output}", f"A picture is in {second}"]
    for picture in (output, second):
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert np.ptp(imread(picture)) == 1.0  # from black to white
    # The title has the numbers of the table's first row: eval, training and shuffled, training and by class.
    [row] = [cells(line) for line in printed.splitlines() if cells(line)[:1] == ["2"]]
    with Image.open(second) as image:
        words = image.info["Title"].split()
    in_title = [float(words[index]) for index in range(len(words)) if words[index + 1 : index + 2] == ["%"]]
    assert in_title == pytest.approx([float(row[column].split()[0]) for column in (3, 1, 2)], abs=0.55)


def test_demo_survives_divergence_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "digits.png"
    given = ["--seeds", "1", "--epochs", "2", "--learning-rates", "1e30"]
    assert main(["demo", *given, "--output", str(output)]) == 0
    assert capsys.readouterr().out.count("diverged") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]  # none of a mistake that nothing could make


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
