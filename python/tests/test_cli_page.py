# SPDX-License-Identifier: Apache-2.0
"""docs/command-line.md: its commands print what stands below them, and its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

from batchnorm import cli
from batchnorm.inspection import KINDS, SUFFIXES

PAGE = (REPOSITORY / "docs" / "command-line.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def test_commands_print_what_stands_below_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compared = 0
    for language, code, output in FENCE.findall(PAGE):
        if language == "python":
            exec(compile(code, "command-line.md", "exec"), {})
        if not output:
            continue
        _, *arguments = shlex.split(code)
        assert cli.main(arguments) == 0
        printed = capsys.readouterr().out
        if arguments[0] == "info":  # which differs between machines
            printed, output = ("\n".join(line.split()[0] for line in text.splitlines()) for text in (printed, output))
        assert printed == output, code
        compared += 1
    assert compared == 3


def test_every_command_is_there() -> None:
    table = set(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE))
    assert table == set(cli.COMMANDS)


def test_every_finding_and_suffix_is_there() -> None:
    rows: list[Any] = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    named = {each for row in rows for each in re.findall(r"`([^`]+)`", row)}
    assert named == {*KINDS, *SUFFIXES}


def test_every_option_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = ""
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said += capsys.readouterr().out
    assert {each for each in re.findall(r"--[a-z-]+\w", PAGE) if each not in said} == set()
