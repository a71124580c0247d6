# SPDX-License-Identifier: Apache-2.0
"""from_state() and to_state() for every layer of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from ..interop.convention import AFFINE, Convention, path_of
from ..interop.conventions import Framework, convention_of
from ..interop.files import read_state, write_state
from ..interop.states import from_state, to_state
from ..layers.layer import BatchNorm
from .layers import Arrays, Found, layers_in

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Converted:
    """A layer: where it was, where it is, and the settings that it has there.

    `filled` is gamma or beta where it had none, and the other framework has both or neither; it is 1 or 0 now.

    Examples
    --------
    >>> from batchnorm.conversion import Converted
    >>> Converted("bn1", "bn1", 64, {"epsilon": 1e-5}).settings
    {'epsilon': 1e-05}
    """

    name: str
    new_name: str
    channels: int
    settings: dict[str, Any]
    filled: str = ""


@dataclass(frozen=True)
class Conversion:
    """The arrays of all layers, what became of each, and the names of arrays that are no layer's.

    Examples
    --------
    >>> from batchnorm.conversion import convert_arrays
    >>> convert_arrays({"bn.running_mean": [0.0], "bn.running_var": [1.0], "w": [2.0]}, "pytorch", "keras").passed_over
    ['w']
    """

    arrays: Arrays
    layers: list[Converted]
    passed_over: list[str]


def convert_file(
    source: PathLike,
    output: PathLike,
    from_framework: Framework,
    to_framework: Framework,
    *,
    prefix: str = "",
    count: float | None = None,
    **settings: Any,
) -> Conversion:
    """Reads a file as read_state() does, and writes its batch norms as write_state() does: all of them, or nothing.

    Parameters
    ----------
    source, output : str or path
        Of ONNX models the batch norms of all graphs are taken, with their eps and momentum; so are those of .keras and
        .h5 files that have a model's configuration.
    from_framework, to_framework : str
        A name in the table of `batchnorm.interop.states`.
    prefix : str, default ""
        Takes only the layer there, and those below it.
    count, **settings
        As from_state() and to_state() have them; settings count for all layers, and more than those of the file.

    Raises
    ------
    ValueError
        There is no such layer, one cannot be converted, or two would have the same name; and what from_state(),
        to_state(), read_state() and write_state() raise.

    Examples
    --------
    >>> import os, tempfile
    >>> import batchnorm as bn
    >>> from batchnorm.conversion import convert_file
    >>> paths = [os.path.join(tempfile.mkdtemp(), name) for name in ("torch.npz", "keras.npz")]
    >>> bn.write_state(paths[0], {f"layer1.bn.{key}": array for key, array in bn.BatchNorm(3).state_dict().items()})
    >>> [layer] = convert_file(*paths, "pytorch", "keras").layers
    >>> layer.new_name, layer.settings["epsilon"], list(bn.read_state(paths[1]))[0]
    ('layer1/bn', 1e-05, 'layer1/bn/gamma')
    """
    path = Path(source)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    if path.suffix == ".onnx":
        from .from_onnx import layers_of_onnx

        arrays, found = layers_of_onnx(path, convention_of(from_framework))
    else:
        arrays = read_state(path)
        found = layers_in(arrays, convention_of(from_framework), path)
    try:
        made = _converted(arrays, found, from_framework, to_framework, prefix, count, settings)
    except KeyError as error:  # StateError's, whose text is a sentence
        raise ValueError(str(error)) from None
    write_state(output, made.arrays)
    return made


def convert_arrays(
    arrays: Mapping[str, Any],
    from_framework: Framework,
    to_framework: Framework,
    *,
    prefix: str = "",
    count: float | None = None,
    **settings: Any,
) -> Conversion:
    """Converts the batch norms among arrays by name; see convert_file().

    Examples
    --------
    >>> from batchnorm.conversion import convert_arrays
    >>> convert_arrays({"bn.running_mean": [0.0], "bn.running_var": [1.0]}, "pytorch", "flax").arrays.keys()
    dict_keys(['batch_stats/bn/mean', 'batch_stats/bn/var'])
    """
    found = layers_in(arrays, convention_of(from_framework), None)
    return _converted(arrays, found, from_framework, to_framework, prefix, count, settings)


def _converted(
    arrays: Mapping[str, Any],
    found: list[Found],
    from_framework: Framework,
    to_framework: Framework,
    prefix: str,
    count: float | None,
    settings: Mapping[str, Any],
) -> Conversion:
    target = convention_of(to_framework)
    wanted = [each for each in found if path_of(each.name)[: len(path_of(prefix))] == path_of(prefix)]
    if not wanted:
        elsewhere = ", ".join(repr(each.name) for each in found[:4]) + (", ..." if len(found) > 4 else "")
        below = f" at prefix {prefix!r}" if prefix else ""
        there = f" (layers are at {elsewhere})" if found else ""
        raise ValueError(f"there is no batch norm of {from_framework}{below}{there}")
    made: Arrays = {}
    layers: list[Converted] = []
    whose: dict[str, str] = {}
    for each in wanted:
        try:
            # Arrays of channels are the same along whatever axis.
            layer = from_state(
                each.state, from_framework, prefix=each.prefix, axis=target.axis, **{**each.settings, **settings}
            )
            filled = _fill(layer, target)
            name = target.separator.join(path_of(each.name))
            state = to_state(layer, to_framework, prefix=name, count=count)
        except (ValueError, TypeError, KeyError) as error:
            raise type(error)(f"{each.name or 'the layer'}: {error}") from None
        for key, array in state.arrays.items():
            if key in made:
                raise ValueError(f"{whose[key]} and {each.name} would both have {key}")
            made[key], whose[key] = array, each.name
        layers.append(Converted(each.name, name, int(np.prod(layer.num_features)), state.settings, filled))
    used = {key for each in wanted for key in each.keys}
    return Conversion(made, layers, [key for key in arrays if key not in used])


def _fill(layer: BatchNorm, target: Convention) -> str:
    """Gives a layer the gamma or beta that the framework has beside the other one."""
    both = target.beta_needs_gamma or any(set(AFFINE) <= set(names) for names in target.flags.values())
    if not both:
        return ""
    if layer.gamma is None and layer.beta is not None:
        layer.gamma = np.ones_like(layer.beta)
        return "gamma"
    if layer.beta is None and layer.gamma is not None and "bias" not in target.flags:
        layer.beta = np.zeros_like(layer.gamma)
        return "beta"
    return ""
