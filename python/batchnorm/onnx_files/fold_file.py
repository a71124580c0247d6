# SPDX-License-Identifier: Apache-2.0
"""Reads a file with batch norms, and writes one in which they are folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .folding import fold_model
from .reading import PathLike, read_model
from .report import Report
from .verifying import Verification, verify
from .writing import prepared


def fold_file(
    source: PathLike,
    target: PathLike | None,
    *,
    keep: Iterable[str] = (),
    overridable: bool = False,
    inputs: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Report, Verification | None]:
    """Folds the batch norms of an ONNX file into their neighbours, and writes what comes of it into another one.

    Parameters
    ----------
    source : str or path
    target : str or path, or None
        None: nothing is written.
    keep, overridable
        As of fold_model().
    inputs : int, default 0
        The number of random inputs on which both models are compared before anything is written.
    shapes : mapping of str to sequence of int, optional
        As of verify().

    Returns
    -------
    Report
    Verification, or None without `inputs`

    Raises
    ------
    ValueError
        The file is no valid ONNX model, `target` is the same file, the two models differ, or verify() raises it.
    OSError
        A file cannot be read or written.
    ImportError
        onnxruntime is not installed, with `inputs`.
    """
    if target is not None and same_file(source, target):
        raise ValueError(f"{target} is the model itself, expected another file: the model may be needed again")
    model = read_model(source)
    report = fold_model(model, keep=keep, overridable=overridable)
    found = None
    if inputs:
        found = verify(read_model(source, check=False), model, report.tensors, inputs=inputs, shapes=shapes)
        if found.too_far:
            name, error = max(found.too_far.items(), key=lambda item: item[1])
            raise ValueError(f"the folded model differs by {error:.1e} of the largest value, at {name!r}: not written")
    if target is not None:
        with prepared(target, model):
            pass
    return report, found


def same_file(source: PathLike, target: PathLike) -> bool:
    """True if the output would overwrite a file that is still to be read."""
    return Path(target).exists() and Path(source).samefile(target)
