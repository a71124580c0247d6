# SPDX-License-Identifier: Apache-2.0
"""A model into a file, all of it or nothing."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._onnx import onnx
from .reading import PathLike, check_file, tensors

# protobuf holds 2 GiB: larger models keep their numbers in a second file. The rest of a model is small.
MOST_BYTES = (1 << 31) - (1 << 26)


@contextmanager
def prepared(path: PathLike, model: Any, *, most_bytes: int = MOST_BYTES) -> Iterator[Path]:
    """Writes a model into a directory of its own beside `path`, and moves it there if nothing goes wrong within.

    Equal models make equal bytes. The numbers of a large model go into a file with `.data` behind its name, and are no
    longer in `model`.

    Parameters
    ----------
    path : str or path
        An older file is replaced.
    model : onnx.ModelProto
    most_bytes : int, optional
        Of its numbers, for one file.

    Yields
    ------
    path
        Where the model is meanwhile.

    Raises
    ------
    ValueError
        onnx.checker does not take the model.
    OSError
        It cannot be written.
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"no file can be written at {path}")
    directory = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        written = directory / path.name
        if size_of(model) > most_bytes:
            told = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 1024}
            onnx.save_model(model, str(written), **told)
            for each in directory.iterdir():  # onnx makes its own unreadable to others
                each.chmod(written.stat().st_mode & 0o777)
        else:
            written.write_bytes(model.SerializeToString(deterministic=True))
        check_file(written, path)
        yield written
        # The numbers first, as nobody reads them without the model.
        for each in sorted(directory.iterdir(), reverse=True):
            each.replace(path.parent / each.name)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def size_of(model: Any) -> int:
    """About how many bytes the numbers of a model take."""
    return sum(len(each.raw_data) or 8 * math.prod(each.dims) for each in tensors(model))
