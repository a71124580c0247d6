# SPDX-License-Identifier: Apache-2.0
"""`batchnorm live`: where the page is found, copied to, and said not to be."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from batchnorm.cli import live, main


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or True)
    return addresses


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "a page.html"
    path.write_bytes(b"<!doctype html>\r\n")
    monkeypatch.setenv("BATCHNORM_LIVE", str(path))
    return path


def test_it_is_opened_and_named(page: Path, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert opened == [page.as_uri()]


def test_a_copy_is_opened(page: Path, opened: list[str], tmp_path: Path) -> None:
    target = tmp_path / "copy.html"
    target.write_text("older")
    assert main(["live", "--output", str(target)]) == 0
    assert target.read_bytes() == page.read_bytes()
    assert opened == [target.as_uri()]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a page.html", "copy.html"]


def test_no_browser(page: Path, opened: list[str]) -> None:
    assert main(["live", "--no-browser"]) == 0
    assert opened == []


def test_no_browser_can_be_started(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert main(["live"]) == 1
    said = capsys.readouterr()
    assert said.out == f"{page}\n"
    assert said.err.startswith("batchnorm live: no browser could be started")


def test_it_is_not_there(
    page: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page.unlink()
    assert main(["live"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("batchnorm live: ")
    assert repr(str(page)) in said
    assert said.count("\n") == 1
    monkeypatch.delenv("BATCHNORM_LIVE")
    monkeypatch.setattr(live, "BUILT", tmp_path / "none.html")
    assert main(["live", "--no-browser"]) == 1
    said = capsys.readouterr().err
    assert "make live" in said
    assert "BATCHNORM_LIVE" in said
    assert said.count("\n") == 1
    assert opened == []


def test_a_built_page_is_found(
    page: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BATCHNORM_LIVE")
    monkeypatch.setattr(live, "BUILT", page)
    assert main(["live", "--no-browser"]) == 0
    assert capsys.readouterr().out == f"{page}\n"


def test_a_copy_that_cannot_be_written(page: Path, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    target = page.parent / "none" / "copy.html"
    assert main(["live", "--output", str(target)]) == 1
    assert capsys.readouterr().err.startswith(f"batchnorm live: the page cannot be written to {str(target)!r}")
    assert opened == []
