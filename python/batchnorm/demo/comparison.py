# SPDX-License-Identifier: Apache-2.0
"""One network, without and with batch norm, at several learning rates; and the classic mistake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import mistake, mistake_plot, plot, report
from .training import BATCH, NAMES, SIZES, Digits, Record, train


@dataclass(frozen=True)
class Settings:
    """The runs: every learning rate, without and with batch norm, for every seed."""

    seeds: int = 3
    epochs: int = 20
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)


QUICK = Settings(seeds=1, epochs=4, learning_rates=(0.1, 3.0))


def train_all(settings: Settings) -> list[Record]:
    """Every run that the settings ask for, in the order of the table."""
    runs = [
        (rate, batch_norm, seed)
        for rate in sorted(set(settings.learning_rates))
        for batch_norm in (False, True)
        for seed in range(settings.seeds)
    ]
    records = []
    # disable=None: a bar for a terminal, and none for a log file.
    with tqdm(total=len(runs) * settings.epochs, unit="epoch", leave=False, disable=None) as bar:
        for rate, batch_norm, seed in runs:
            bar.set_description(f"learning rate {rate:g} {NAMES[batch_norm]}, seed {seed}")
            record = train(rate, batch_norm=batch_norm, seed=seed, epochs=settings.epochs, finished_epoch=bar.update)
            bar.update(settings.epochs - len(record.loss))  # those that a diverged run did not get to
            records.append(record)
    return records


def best_with_batch_norm(records: Sequence[Record]) -> Record | None:
    """The run that ended with the highest test accuracy; None if every run diverged."""
    finished = [run for run in records if run.batch_norm and not run.diverged]
    return max(finished, key=lambda run: run.accuracy[-1], default=None)


def beside(output: Path) -> Path:
    """The path of the second picture: batchnorm-demo-eval.png beside batchnorm-demo.png."""
    return output.with_name(f"{output.stem}-eval{output.suffix}")


def run(output: Path, settings: Settings) -> None:
    """Trains, prints the tables and writes the pictures."""
    print(f"1,797 handwritten digits; a perceptron of {' - '.join(map(str, SIZES))} units.")
    print(f"Images per batch: {BATCH}. Epochs: {settings.epochs}. Seeds: {settings.seeds}.\n", flush=True)
    records = train_all(settings)
    print(report.summary(records))
    plot.draw(records, output)
    pictures = [output]

    best = best_with_batch_norm(records)
    if best is not None:
        print("\nThe classic mistake: to leave a network in training mode when it is evaluated.\n")
        found = mistake.measure(best.network, Digits.split(best.seed))
        print(mistake.lesson(found))
        pictures.append(beside(output))
        mistake_plot.draw(found.shares, pictures[-1])

    print("\nThe live page trains both networks while you look: `make live` builds .build-live/batchnorm-live.html,")
    print("and `batchnorm live` opens it.")
    print("\n" + "\n".join(f"A picture is in {picture}" for picture in pictures))
