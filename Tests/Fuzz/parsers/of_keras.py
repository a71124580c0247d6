# SPDX-License-Identifier: Apache-2.0
"""Keras's archives: a configuration in JSON beside a file of HDF5."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from pathlib import Path

import batchnorm as bn
import of_hdf5
from batchnorm.inspection import findings, read_norms
from judge import expect, refuses, same_arrays
from mutations import mutated_bytes

NAME, SUFFIX, PACKAGES = "keras", ".keras", ("h5py",)
_WEIGHTS = "model.weights.h5"


def _archive(members: list[tuple[str, bytes]], packing: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return file.getvalue()


def seeds(folder: Path) -> list[bytes]:
    members = [("metadata.json", b"{}"), ("config.json", of_hdf5.config().encode()), (_WEIGHTS, of_hdf5.made())]
    return [_archive(members)]


def mutated(rng: random.Random, data: bytes) -> bytes:
    weights = of_hdf5.made(rng) if rng.random() < 0.5 else mutated_bytes(rng, of_hdf5.made())
    told = of_hdf5.config(rng).encode()
    members = [("config.json", told if rng.random() < 0.8 else mutated_bytes(rng, told)), (_WEIGHTS, weights)]
    change = rng.randrange(8)
    if change == 0:
        members.pop(rng.randrange(2))
    elif change == 1:
        members.append(rng.choice(members))
    elif change == 2:
        members.append((rng.choice(["config.json", _WEIGHTS, "x"]), rng.randbytes(rng.randrange(99))))
    return _archive(members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def check(path: Path) -> bool:
    """True if it loads, and then to what is in the file of HDF5 within."""
    refused, found = refuses(lambda: bn.read_state(path), path, names=str(path))
    if not refused:
        within = path.with_suffix(".within")
        with zipfile.ZipFile(path) as archive:
            within.write_bytes(archive.read(_WEIGHTS))
        same_arrays(found, of_hdf5.independent(within))
    unread, norms = refuses(lambda: read_norms(path), path)
    if not unread:
        expect(len(findings(norms)) == len(norms), "findings are not one list for each batch norm")
    return not refused
