# SPDX-License-Identifier: Apache-2.0
"""The experiments: their claims hold for every seed, and not without what they are about."""

from __future__ import annotations

import ast
import copy
import json
import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from helpers import PACKAGE, REPOSITORY

from batchnorm import __version__, experiments
from batchnorm.cli import main
from batchnorm.cli.experiments import PACKAGES
from batchnorm.experiments import NAMES

for package in PACKAGES:
    pytest.importorskip(package)

from PIL import Image  # noqa: E402

from batchnorm.demo import mistake  # noqa: E402
from batchnorm.demo.network import Network, cross_entropy  # noqa: E402
from batchnorm.experiments import batch_size, eval_mode, landscape, momentum, rates, result, scaler, training  # noqa: E402
from batchnorm.experiments.along_gradient import look_ahead  # noqa: E402
from batchnorm.experiments.claims import Check, Claim, Row, Rows, deviation, distinct, mean, values  # noqa: E402
from batchnorm.experiments.result import Result, Settings, module_of  # noqa: E402

SEEDS = (0, 1, 2)
Patch = pytest.MonkeyPatch


def command_without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter of its own, where that package cannot be imported."""
    code = f"import sys; sys.modules[{package!r}] = None; from batchnorm.cli import main; sys.exit(main(sys.argv[1:]))"
    given = [sys.executable, "-c", code, "experiments", *arguments]
    return subprocess.run(given, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)


@cache
def measured(name: str) -> Result:
    return result.perform(name, Settings(SEEDS, quick=True))


def changed(rows: Rows, change: Callable[[Row], Row]) -> list[Row]:
    return [change(dict(row)) for row in rows]


# Claims


@pytest.mark.parametrize("name", NAMES)
def test_claim_holds_for_every_seed(name: str) -> None:
    found = measured(name)
    assert found.claim.holds, found.claim.checks
    for seed in found.settings.seeds:
        alone = module_of(name).claim([row for row in found.rows if row["seed"] == seed])
        assert alone.holds, (seed, alone.checks)


def no_batch_norm_at_all(patch: Patch, name: str) -> None:
    module = module_of(name)
    build = training.build

    def plain(seed: int, sizes: tuple[int, ...] = training.SIZES, **given: Any) -> Network:
        return build(seed, sizes, **{**given, "batch_norm": False})

    patch.setattr(module, "build", plain)


def the_usual_momentum(patch: Patch, _: str) -> None:
    build = training.build
    patch.setattr(momentum, "build", lambda seed, **_: build(seed, batch_norm=True))


def large_batches(patch: Patch, _: str) -> None:
    fit = training.fit
    patch.setattr(batch_size, "fit", lambda *given, **named: fit(*given, **{**named, "batch": 32, "rate": 0.05}))


def scaled_beforehand(patch: Patch, _: str) -> None:
    split = scaler.split
    patch.setattr(scaler, "split", lambda name, seed, scaled: split(name, seed, True))


def eval_called(patch: Patch, _: str) -> None:
    original = mistake.accuracy_in_batches

    def right(network: Network, *given: Any) -> float:
        network.eval()
        return original(network, *given)

    patch.setattr(mistake, "accuracy_in_batches", right)


ABLATIONS = {
    "landscape": no_batch_norm_at_all,
    "rates": no_batch_norm_at_all,
    "weights": no_batch_norm_at_all,
    "momentum": the_usual_momentum,
    "batch-size": large_batches,
    "placement": no_batch_norm_at_all,
    "scaler": scaled_beforehand,
    "eval-mode": eval_called,
}


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_without_its_cause(name: str, monkeypatch: Patch) -> None:
    ABLATIONS[name](monkeypatch, name)
    found = result.perform(name, Settings((0,), quick=True))
    assert not found.claim.holds, found.claim.checks
    assert found.lesson.startswith("Not in this run: ")


def test_identical_networks_show_no_difference(monkeypatch: Patch) -> None:
    no_batch_norm_at_all(monkeypatch, "landscape")
    rows = landscape.measure(Settings((0,), quick=True))
    assert [check.value for check in landscape.claim(rows).checks] == [1, 1, 1]


def flipped(row: Row) -> Row:
    return {**row, "batch norm": not row["batch norm"]}


def renamed(column: str, one: str, other: str) -> Callable[[Row], Row]:
    return lambda row: {**row, column: {one: other, other: one}.get(row[column], row[column])}


TAMPERED: dict[str, Callable[[Row], Row]] = {
    "landscape": flipped,
    "rates": flipped,
    "weights": flipped,
    "momentum": lambda row: {**row, "recalibrated": row["accuracy"]},
    "batch-size": renamed("kind", "batch norm", "without batch norm"),
    "placement": lambda row: {**row, "accuracy": row["accuracy"] - 10 * (row["place"] == "before")},
    "scaler": renamed("kind", "batch norm first", "raw"),
    "eval-mode": lambda row: {**row, "right": row["shuffled"]},
}


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_for_other_numbers(name: str) -> None:
    rows = changed(measured(name).rows, TAMPERED[name])
    if name == "batch-size":  # the noise is measured where batch norm is
        rows = changed(rows, lambda row: {**row, "noise": 1 / math.sqrt(row["size"])})
    assert not module_of(name).claim(rows).holds


@pytest.mark.parametrize("name", NAMES)
def test_claim_does_not_hold_for_what_is_no_number(name: str) -> None:
    settings = {"rate", "scale", "momentum", "noise"}

    def spoil(row: Row) -> Row:
        return {key: math.nan if isinstance(row[key], float) and key not in settings else row[key] for key in row}

    assert not module_of(name).claim(changed(measured(name).rows, spoil)).holds


def test_every_check_counts() -> None:
    assert [Check("x", value, ">=", 2).holds for value in (1.9, 2, 2.1, math.nan)] == [False, True, True, False]
    assert [Check("x", value, "<=", 2).holds for value in (1.9, 2, 2.1, math.nan)] == [True, True, False, False]
    good, bad = Check("x", 3, ">=", 2), Check("x", 1, ">=", 2)
    assert Claim("", (good, good)).holds
    assert not Claim("", (good, bad)).holds
    assert not Claim("", (bad, good)).holds
    assert str(bad) == "x: 1 >= 2, which fails"


def test_rows_are_looked_up_by_all_that_is_given() -> None:
    rows = [{"a": 1, "b": True, "c": 2.0}, {"a": 1, "b": False, "c": 4.0}, {"a": 2, "b": True, "c": 9.0}]
    assert values(rows, "c", a=1) == [2, 4]
    assert (mean(rows, "c", a=1), deviation(rows, "c", a=1)) == (3, math.sqrt(2))
    assert (mean(rows, "c", a=1, b=False), deviation(rows, "c", a=1, b=False)) == (4, 0)
    assert distinct(rows, "a") == [1, 2]
    with pytest.raises(ValueError, match="no row has a 3"):
        mean(rows, "c", a=3)


# What is measured


def test_look_ahead_finds_what_steps_of_a_copy_find_and_leaves_no_trace() -> None:
    network, data = training.build(0, (64, 16, 16, 10), batch_norm=True), training.digits(0)
    training.fit(network, data, rate=0.1, epochs=1, seed=0)
    x, labels = data.train_x[:64], data.train_y[:64]

    def at(distance: float) -> tuple[float, Any]:
        copied = copy.deepcopy(network)
        copied.backward(cross_entropy(copied(x), labels)[1])
        copied.descend(distance)
        loss, gradient = cross_entropy(copied(x), labels)
        copied.backward(gradient)
        return loss, np.concatenate([gradient.ravel() for _, gradient in copied.parameters()]).astype(float)

    kept = copy.deepcopy(network)
    found = look_ahead(network, x, labels, [0.1, 0.4])
    (loss, here), (near, at_near), (far, at_far) = at(0), at(0.1), at(0.4)
    moved = [np.linalg.norm(there - here) for there in (at_near, at_far)]
    # Steps are rounded to float32 either way, by the same operations.
    assert found == pytest.approx(
        {
            "loss": loss,
            "lowest loss": min(near, far),
            "highest loss": max(near, far),
            "gradient": np.linalg.norm(here),
            "least change": min(moved),
            "largest change": max(moved),
            "beta": max(moved[0] / 0.1, moved[1] / 0.4) / np.linalg.norm(here),
        },
        rel=1e-6,
    )
    for (value, _), (before, _) in zip(network.parameters(), kept.parameters()):
        np.testing.assert_array_equal(value, before)
    for norm, other in zip(network.norms, kept.norms):
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, other.state_dict()[key])


def test_batches_are_of_one_size_and_hold_no_sample_twice() -> None:
    drawn = list(training.batches(23, 5, np.random.default_rng(0)))
    assert [len(batch) for batch in drawn] == [5, 5, 5, 5]
    assert len(set(np.concatenate(drawn).tolist())) == 20


def test_training_ends_when_the_loss_is_no_number() -> None:
    seen: list[int] = []
    network = training.build(0, batch_norm=False)
    training.fit(network, training.digits(0), rate=1e30, epochs=3, seed=0, before_step=lambda x, _: seen.append(len(x)))
    assert 1 < len(seen) < 21
    assert 0 <= training.percent_right(network, training.digits(0)) <= 20


def test_noise_of_independent_samples_falls_with_the_root_of_their_number() -> None:
    network, data = training.build(0, batch_norm=True), training.digits(0)
    states = [norm.state_dict() for norm in network.norms]
    at_one, at_four, at_all = (batch_size.noise(network, data.train_x, size) for size in (1, 4, len(data.train_x)))
    assert at_one == pytest.approx(1, abs=1e-3)  # in standard deviations
    assert at_four == pytest.approx(0.5, abs=0.05)
    assert at_all == pytest.approx(0, abs=1e-5)
    for norm, state in zip(network.norms, states):
        assert norm.training
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, state[key])


def test_a_scaled_table_has_columns_of_one_unit() -> None:
    for name in scaler.TABLES:
        raw, scaled = (scaler.split(name, 0, each) for each in (False, True))
        np.testing.assert_array_equal(raw.test_y, scaled.test_y)
        assert np.ptp(raw.train_x.std(axis=0)) > 100
        mean_of, std_of = raw.train_x.mean(axis=0, dtype=float), raw.train_x.std(axis=0, dtype=float)
        for one, other in ((raw.train_x, scaled.train_x), (raw.test_x, scaled.test_x)):
            # float32 columns of up to 2,000 deviations from 0 are rounded to 2^-24 of that
            np.testing.assert_allclose(other, (one - mean_of) / std_of, rtol=0, atol=2e-3)


def test_both_places_are_tried() -> None:
    rows = measured("placement").rows
    before, after = ([row["accuracy"] for row in rows if row["place"] == place] for place in ("before", "after"))
    assert sum(one != other for one, other in zip(before, after)) > len(before) / 2


def test_weights_do_not_depend_on_momentum() -> None:
    rows = measured("momentum").rows
    for batch in momentum.RATES:
        for seed in SEEDS:
            assert len(set(values(rows, "recalibrated", batch=batch, seed=seed))) == 1


# Pictures and files


@pytest.mark.parametrize("name", NAMES)
def test_picture_has_the_lesson_as_its_title(name: str, tmp_path: Path) -> None:
    found = measured(name)
    figure = found.figure()
    assert figure.get_suptitle().replace("\n", " ") == found.lesson == module_of(name).LESSON
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_title("left")
        assert axes.get_ylabel() or axes.get_title("left")
        assert axes.lines or axes.collections
    picture, _ = found.save(tmp_path)
    assert picture.stat().st_size < 60_000
    with Image.open(picture) as image:
        assert (image.format, image.info["Title"]) == ("PNG", found.lesson)
        assert image.width > 1000
        grey = np.asarray(image.convert("L"))
    assert grey.min() < 60
    assert grey.max() == 255


def test_curves_are_means_over_seeds() -> None:
    found = measured("rates")
    (axes,) = found.figure().axes
    drawn = {str(each.get_label()): np.asarray(each.lines[0].get_ydata(), float) for each in axes.containers}
    for with_norm, label in ((False, "without batch norm"), (True, "with batch norm")):
        expected = [
            np.mean([row["accuracy"] for row in found.rows if (row["rate"], row["batch norm"]) == (rate, with_norm)])
            for rate in rates.RATES[1::2]
        ]
        np.testing.assert_allclose(drawn[label], expected)


def test_a_rate_that_reaches_what_is_asked_for_and_no_more_is_good() -> None:
    found = {(0.01, True): 90, (0.1, True): 95, (0.01, False): 90, (0.1, False): 89}
    rows = [{"rate": rate, "batch norm": norm, "seed": 0, "accuracy": each} for (rate, norm), each in found.items()]
    reached = "With batch norm 90 % are reached at rates from 0.01 to 0.1, and without it at rates from 0.01 to 0.01. "
    assert rates.claim(rows).sentence.startswith(reached)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", NAMES)
def test_json_has_all_that_the_claim_is_made_of(name: str, tmp_path: Path) -> None:
    found = measured(name)
    _, data = found.save(tmp_path)
    read = json.loads(data.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["rows"] == found.rows
    again = module_of(name).claim(read["rows"])
    assert again == found.claim
    assert read["claim"]["sentence"] == again.sentence
    assert [each["holds"] for each in read["claim"]["checks"]] == [True] * len(again.checks)
    assert (read["name"], read["lesson"], read["when_not"]) == (name, found.lesson, found.when_not)
    assert read["settings"] == {"seeds": list(found.settings.seeds), "quick": True}


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Patch) -> None:
    found = measured("eval-mode")
    (tmp_path / "eval-mode.json").write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    for broken in ("replace", "write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, broken, fail)
            with pytest.raises(OSError, match="full"):
                found.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["eval-mode.json"]
        assert (tmp_path / "eval-mode.json").read_text() == "earlier"
    monkeypatch.setattr(eval_mode, "draw", fail)
    with pytest.raises(OSError, match="full"):
        found.save(tmp_path)
    assert (tmp_path / "eval-mode.json").read_text() == "earlier"


# The command line


def test_command_prints_the_claim_and_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "folder"
    assert main(["experiments", "eval-mode", "eval-mode", "--quick", "--seeds", "2", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["eval-mode.json", "eval-mode.png"]
    read = json.loads((output / "eval-mode.json").read_text(encoding="utf-8"))
    assert (read["settings"], read["version"]) == ({"seeds": [0, 1], "quick": True}, __version__)
    words = " ".join(printed.split())
    for sentence in (read["lesson"], read["claim"]["sentence"], f"When it is not so: {read['when_not']}"):
        assert words.count(sentence) == 1
    assert str(output / "eval-mode.png") in printed


def test_json_on_standard_output_is_what_the_files_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["experiments", "eval-mode", "rates", "--quick", "--seeds", "1", "--json", "--output", str(tmp_path)]
    assert main(given) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("eval-mode", "rates")]


def test_claim_that_does_not_hold_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(eval_mode, "claim", lambda _: Claim("As it is.", (Check("a number", 1, ">=", 2),)))
    assert main(["experiments", "eval-mode", "--quick", "--seeds", "1", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        "batchnorm experiments: a claim does not hold in this run: eval-mode: a number: 1 >= 2, which fails\n"
    )
    assert "Not in this run: call eval()" in printed.out
    with Image.open(tmp_path / "eval-mode.png") as image:
        assert image.info["Title"].startswith("Not in this run: ")
    assert json.loads((tmp_path / "eval-mode.json").read_text())["claim"]["holds"] is False


@pytest.mark.parametrize("given", [["landscapes"], ["rates", "x"], ["--seeds", "0"], ["--seeds", "one"]], ids=" ".join)
def test_misunderstood_is_status_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["experiments", *given])
    assert exited.value.code == 2
    assert capsys.readouterr().err.startswith("usage: batchnorm experiments")


def test_unknown_names_and_no_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="no experiment 'landscapes', expected one of landscape, rates"):
        experiments.run("landscapes")
    with pytest.raises(ValueError, match="seeds is 0, expected at least 1"):
        experiments.run("rates", seeds=0)


def test_folder_is_looked_at_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(result, "perform", refuse)
    file = tmp_path / "file"
    file.touch()
    for output in (file, file / "folder"):
        assert main(["experiments", "rates", "--output", str(output)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.fullmatch(rf"batchnorm experiments: no folder can be made at {output}: .+\n", printed.err)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["experiments", "rates", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"batchnorm experiments: no file can be written in {tmp_path}\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_missing_package_is_one_sentence(package: str, tmp_path: Path) -> None:
    done = command_without(package, "--output", str(tmp_path / "never"))
    assert (done.returncode, done.stdout) == (1, "")
    needed = PACKAGES[package]
    assert done.stderr == f"batchnorm experiments: this needs {needed}: pip install scikit-learn matplotlib\n"
    assert not (tmp_path / "never").exists()


def test_tqdm_is_not_needed(tmp_path: Path) -> None:
    done = command_without("tqdm", "eval-mode", "--quick", "--seeds", "1", "--output", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


# The page and the notebook


def test_page_shows_every_experiment_with_what_speaks_against_it() -> None:
    page = " ".join((REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8").split())
    sections = page.split(" ## ")[1:]
    assert len(sections) == len(NAMES)
    for name, section in zip(NAMES, sections):
        module = module_of(name)
        assert section.startswith(f"{module.LESSON} ```sh batchnorm experiments {name} ```")
        assert f"**When it is not so.** {' '.join(module.EXCEPT.split())}" in section
        assert f"(static/experiments/{name}.png)" in section
        picture = REPOSITORY / "docs" / "static" / "experiments" / f"{name}.png"
        assert picture.stat().st_size < 60_000
        with Image.open(picture) as image:
            assert image.info["Title"] == module.LESSON


def cells_of(notebook: Path) -> list[str]:
    read = json.loads(notebook.read_text(encoding="utf-8"))
    assert (read["nbformat"], read["metadata"]["kernelspec"]["name"]) == (4, "python3")
    code = [cell for cell in read["cells"] if cell["cell_type"] == "code"]
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code)  # not committed
    return ["".join(cell["source"]) for cell in code]


def test_notebook_runs_from_its_first_cell_to_its_last(capsys: pytest.CaptureFixture[str], monkeypatch: Patch) -> None:
    """But for what it runs by name, which other tests here have measured as well."""
    for name in NAMES:
        measured(name)
    asked: list[Settings] = []

    def perform(name: str, settings: Settings) -> Result:
        asked.append(settings)
        return measured(name)

    monkeypatch.setattr(result, "perform", perform)
    session: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for source in cells_of(REPOSITORY / "examples" / "notebooks" / "experiments.ipynb"):
        *body, last = ast.parse(source).body
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), "notebook", "exec"), session)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "notebook", "eval"), session)
            shown.append(value)
    assert set(asked) == {Settings((0,), quick=True)}
    pictures = [value for value in shown if isinstance(value, Result)]
    assert sorted(value.name for value in pictures) == sorted(NAMES)
    for value in pictures:
        assert value.claim.holds, value.claim.checks
        assert value._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
        assert len(repr(value)) < 200
    assert session["accuracy"][True] - session["accuracy"][False] > 50
    assert capsys.readouterr().out.count("When it is not so:") == len(NAMES)
