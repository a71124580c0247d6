# SPDX-License-Identifier: Apache-2.0
"""Reads a file with batch norms, and writes one with other running statistics."""

from __future__ import annotations

from .feeding import read_data
from .fold_file import same_file
from .reading import PathLike, read_model
from .recalibrating import Recalibration, recalibrate_model
from .writing import prepared


def recalibrate_file(source: PathLike, target: PathLike, data: PathLike, *, batch: int | None = None) -> Recalibration:
    """Gives the batch norms of an ONNX file the statistics of data, and writes what comes of it into another one.

    Parameters
    ----------
    source, target : str or path
    data : str or path
        An .npz file with an array for each input of the model, samples first; or an .npy file for the one there is.
    batch
        As of recalibrate_model().

    Raises
    ------
    ValueError, ImportError
        As recalibrate_model() and read_model() do; and `target` is one of the files that are read.
    OSError
        A file cannot be read or written.
    """
    for given in (source, data):
        if same_file(given, target):
            raise ValueError(f"{target} is what is to be read, expected another file")
    model = read_model(source)
    constants = {each.name for each in model.graph.initializer}
    inputs = [each.name for each in model.graph.input if each.name not in constants]
    result = recalibrate_model(model, read_data(data, inputs), batch=batch)
    with prepared(target, model):
        return result
