# SPDX-License-Identifier: Apache-2.0
"""The result of an experiment: rows, a claim and a picture, to be looked at or to be written to files."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, Protocol, cast

from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from .._core import progress
from .._version import __version__
from . import drawing
from .claims import Claim, Rows


@dataclass(frozen=True)
class Settings:
    """The extent of a run: its seeds, and fewer settings and epochs if it is quick."""

    seeds: tuple[int, ...]
    quick: bool = False

    def runs(self, *axes: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
        """Every combination of values with every seed, counted by a bar if tqdm is there and somebody looks."""
        every = list(product(*axes, self.seeds))
        return progress.shown(every, None, len(every), "run")


class Experiment(Protocol):
    """The functions and texts of each experiment's module."""

    LESSON: str
    EXCEPT: str
    NOTE: str

    def measure(self, settings: Settings, /) -> Rows: ...

    def claim(self, rows: Rows, /) -> Claim: ...

    def draw(self, figure: Figure, rows: Rows, /) -> None: ...


def module_of(name: str) -> Experiment:
    return cast(Experiment, import_module("." + name.replace("-", "_"), __package__))


@dataclass(frozen=True, repr=False)
class Result:
    """An experiment that has been run."""

    name: str
    settings: Settings
    rows: Rows

    def __repr__(self) -> str:
        return f"<{self.name}: {self.lesson}>"

    @property
    def lesson(self) -> str:
        """The sentence that the picture teaches, if this run bears it out."""
        lesson = module_of(self.name).LESSON
        return lesson if self.claim.holds else f"Not in this run: {lesson[0].lower()}{lesson[1:]}"

    @property
    def when_not(self) -> str:
        """The cases in which the lesson does not hold."""
        return " ".join(module_of(self.name).EXCEPT.split())

    @cached_property
    def claim(self) -> Claim:
        return module_of(self.name).claim(self.rows)

    def figure(self) -> Figure:
        """A new picture, by matplotlib."""
        module = module_of(self.name)
        count = len(self.settings.seeds)
        note = f"{module.NOTE}; {'one seed' if count == 1 else f'{count} seeds'}."
        return drawing.picture(self.lesson, note, lambda figure: module.draw(figure, self.rows))

    def _repr_png_(self) -> bytes:
        """The picture, for a notebook."""
        return drawing.png(self.figure(), self.lesson)

    def as_json(self) -> dict[str, Any]:
        """All of it but the picture."""
        checks = [{**check._asdict(), "holds": check.holds} for check in self.claim.checks]
        return {
            "name": self.name,
            "version": __version__,
            "settings": asdict(self.settings),
            "lesson": self.lesson,
            "claim": {"sentence": self.claim.sentence, "holds": self.claim.holds, "checks": checks},
            "when_not": self.when_not,
            "rows": self.rows,
        }

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Writes NAME.png and NAME.json, each whole or not at all."""
        picture, data = folder / f"{self.name}.png", folder / f"{self.name}.json"
        image = self._repr_png_()
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        write_whole(data, text.encode())
        write_whole(picture, image)
        return picture, data


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all: a reader sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def perform(name: str, settings: Settings) -> Result:
    """Runs an experiment. Matrices of 64 rows are multiplied by one thread: several would be slower."""
    with threadpool_limits(1):
        return Result(name, settings, module_of(name).measure(settings))
