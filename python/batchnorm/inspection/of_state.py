# SPDX-License-Identifier: Apache-2.0
"""Batch norms in named arrays, by the names that frameworks give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..interop.convention import COUNT, FACTOR, Convention, Path, path_of
from ..interop.conventions import CONVENTIONS, convention_of
from ..interop.suffixes import bare
from .norm import Array, Norm

# The conventions with names of their own for both statistics; if two have the same, the more frequent one comes first.
# flax comes before nnx, whose names are a part of flax's. ONNX, whose names are those of a node's inputs, is left out,
# and so are the saved statistics of cuDNN, which are of one batch.
_ORDER = [convention_of(name) for name in ("pytorch", "keras", "flax", "gluon", "mxnet", "darknet", "flux", "dlib")]
_ORDER += [each for each in CONVENTIONS if each not in _ORDER and each.framework not in ("onnx", "cudnn_saved")]
# Whose statistics have the same names, and which name of gamma tells them apart.
_ALSO = {"pytorch": ("gluon", "lux")}


def norms_of(arrays: Mapping[str, Array]) -> list[Norm]:
    """The batch norms among arrays, in the order of the file."""
    entries = entries_of(arrays)
    found: dict[Path, tuple[int, Norm]] = {}
    place = {path: index for index, path in enumerate(entries)}
    for convention in _ORDER:
        for layer, (mean, var) in layers_of(entries, convention).items():
            if mean not in found:
                found[mean] = place[mean], _norm(arrays, entries, convention, layer, mean, var)
    return [norm for _, norm in sorted(found.values(), key=lambda each: each[0])]


def entries_of(names: Iterable[str]) -> dict[Path, str]:
    """The names in parts, without suffixes of frameworks."""
    entries: dict[Path, str] = {}
    for name in names:
        path = bare(path_of(name))
        if path in entries:
            raise ValueError(f"{entries[path]} and {name} are the same name")
        entries[path] = name
    return entries


def layers_of(entries: Mapping[Path, str], convention: Convention) -> dict[Path, tuple[Path, Path]]:
    """The layers that have both statistics under the names of a framework: the paths of mean and variance."""
    layers: dict[Path, tuple[Path, Path]] = {}
    for path in entries:
        layer = _layer_at(path, convention)
        if layer is None:
            continue
        var = beside(entries, convention, layer, "running_var")
        if var is not None and (not convention.has_factor or beside(entries, convention, layer, FACTOR)):
            layers[layer] = path, var
    return layers


def _layer_at(path: Path, convention: Convention) -> Path | None:
    """Also where a collection stands within something else: state/batch_stats/bn/mean."""
    collection = _collection(convention, "running_mean")
    if collection and collection in path[1:]:
        index = path.index(collection)
        layer = convention.layer_at(path[index:])
        return None if layer is None else (*path[:index], "", *layer)
    head = next((head for head in convention.heads if path and path[0].startswith(head)), "")
    return convention.layer_at((path[0][len(head) :], *path[1:]) if head else path)


def _collection(convention: Convention, name: str) -> str:
    return convention.keys[name].rpartition("/")[0]


def beside(entries: Mapping[Path, str], convention: Convention, layer: Path, name: str) -> Path | None:
    """The path of another array of the layer, if it is there."""
    if name not in convention.keys:
        return None
    above, below = ((), layer) if "" not in layer else (layer[: layer.index("")], layer[layer.index("") + 1 :])
    for path in convention.paths(name, below):
        for head in ("", *convention.heads):
            candidate = (head + path[0], *path[1:]) if head else (*above, *path)
            if candidate in entries:
                return candidate
    return None


def _norm(
    arrays: Mapping[str, Array], entries: Mapping[Path, str], convention: Convention, layer: Path, mean: Path, var: Path
) -> Norm:
    paths: dict[str, Path | None] = {"mean": mean, "var": var}
    candidates = (convention, *map(convention_of, _ALSO.get(convention.framework, ())))
    affine = [{name: beside(entries, each, layer, name) for name in ("gamma", "beta")} for each in candidates]
    most = max(range(len(candidates)), key=lambda index: sum(path is not None for path in affine[index].values()))
    whose = candidates[most]
    paths.update(affine[most])
    numbers = {name: None if path is None else arrays[entries[path]] for name, path in paths.items()}
    name = ("/" if "/" in entries[mean] else whose.separator).join(part for part in layer if part)
    made = Norm(name or "(the whole file)", whose.framework, assumed_eps=whose.eps)
    count = beside(entries, convention, layer, COUNT)
    if count is not None and arrays[entries[count]].size == 1:
        made.batches = int(arrays[entries[count]].reshape(-1)[0])
    if whose.spread == "inverse" or whose.has_factor:
        made.unknown = f"its statistics are not those of a layer: convert it from {whose.framework} first"
    return made.take(numbers)
