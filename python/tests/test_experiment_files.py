# SPDX-License-Identifier: Apache-2.0
"""Experiments as pictures, files, a command, a page and a notebook."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PACKAGE, REPOSITORY
from measuring import Patch, measured
from PIL import Image

from batchnorm import __version__, experiments
from batchnorm.cli import main
from batchnorm.cli.experiments import PACKAGES
from batchnorm.experiments import NAMES, eval_mode, rates, result
from batchnorm.experiments.claims import Check, Claim
from batchnorm.experiments.result import Result, Settings, module_of


def command_without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter of its own, where that package cannot be imported."""
    code = f"import sys; sys.modules[{package!r}] = None; from batchnorm.cli import main; sys.exit(main(sys.argv[1:]))"
    given = [sys.executable, "-c", code, "experiments", *arguments]
    return subprocess.run(given, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)


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
    """The experiments that it runs by name are those that other tests here have measured."""
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
