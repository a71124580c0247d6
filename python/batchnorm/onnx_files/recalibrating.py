# SPDX-License-Identifier: Apache-2.0
"""Running statistics of data, in place of those that a model came with.

Each batch norm gets the mean and the variance of all values that reach it in inference, pooled exactly, while those
before it have their new ones already. Batch norms of which none is before another are observed in one pass over the
data, so that there are as many passes as there are batch norms in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.progress import shown
from .._core.rounding import rounded
from ..statistics.moments import Moments
from ._onnx import attributes, opset_of
from .feeding import Feed
from .norms import EPSILON, in_training, is_norm
from .report import label
from .running import Session
from .scope import Scope, names_in, subgraphs

Array = NDArray[Any]


@dataclass(frozen=True)
class Recalibrated:
    """A batch norm with new statistics.

    Attributes
    ----------
    name : str
    values : int
        Per channel.
    moved : float
        By how many of its old standard deviations (with epsilon) the mean of a channel moved, at most.
    spread : tuple of float
        The least and the largest of the new variances over the old ones (with epsilon).
    parted : bool
        True if another node goes on with the old numbers.
    """

    name: str
    values: int
    moved: float
    spread: tuple[float, float]
    parted: bool


@dataclass
class Recalibration:
    """The result of recalibrating a model.

    Attributes
    ----------
    samples, passes : int
    norms : list of Recalibrated
        In the order in which they were observed.
    left : list of (str, str)
        The name of each that keeps its statistics, and the reason.
    """

    samples: int = 0
    passes: int = 0
    norms: list[Recalibrated] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def recalibrate_model(model: Any, data: Mapping[str, Array], *, batch: int | None = None) -> Recalibration:
    """Gives the batch norms of a model, in place, the mean and the variance of what reaches them.

    The variance is that of the population, m2 / count, as ONNX has it.

    Parameters
    ----------
    model : onnx.ModelProto
        With its external data in it.
    data : mapping of str to array
        The inputs by name, with samples along the first axis.
    batch : int, optional
        The number of samples at a time. The result is the same but for rounding.

    Raises
    ------
    ValueError
        The data do not fit the inputs, a batch norm gets values that are not finite or none, a statistic is beyond what
        its type holds, or ONNX Runtime cannot run the model.
    ImportError
        onnxruntime is not installed.
    """
    result = Recalibration()
    scope = Scope(model, model.graph, opset_of(model.opset_import), {}, None, True)
    levels = _levels(scope, result)
    observed = [node.input[0] for level in levels for node in level]
    if not observed:
        return result
    feed = Feed(Session(model, dict.fromkeys(observed)).inputs, data, batch)
    result.samples, result.passes = feed.samples, len(levels)
    for level in shown(levels, None, len(levels), "pass"):
        seen = _observe(model, level, feed)
        for node in level:
            result.norms.append(_settle(scope, node, seen[node.input[0]]))
    scope.finish()
    return result


def _levels(scope: Scope, result: Recalibration) -> list[list[Any]]:
    """The batch norms in levels, by the number of others before them."""
    levels: list[list[Any]] = []
    depth: dict[str, int] = {}
    for node in scope.nodes:
        needed = [*node.input, *(name for inner in subgraphs(node) for name in names_in(inner))]
        level = max((depth.get(name, 0) for name in needed), default=0)
        if is_norm(node):
            reason = _why_not(scope, node)
            if reason:
                result.left.append((label(node), reason))
            else:
                levels.extend([] for _ in range(level + 1 - len(levels)))
                levels[level].append(node)
                level += 1
        depth.update(dict.fromkeys(node.output, level))
        for inner in subgraphs(node):
            result.left.extend((label(each), "it stands in a subgraph") for each in _norms_within(inner))
    for function in scope.model.functions:
        result.left.extend((label(each), "it stands in a function") for each in function.node if is_norm(each))
    return levels


def _why_not(scope: Scope, node: Any) -> str:
    training = in_training(node, scope.opset)
    if training:
        return f"it has {training}, and takes the statistics of each batch"
    if scope.opset < 9 and attributes(node).get("spatial", 1) != 1:
        return "it has spatial=0, and statistics for each position"
    for name in node.input[3:5]:
        if scope.constants.get(name) is None:
            return f"its statistics are not constant: {scope.constants.why_not(name)}"
    return ""


def _norms_within(graph: Any) -> list[Any]:
    inner = [each for node in graph.node for part in subgraphs(node) for each in _norms_within(part)]
    return [node for node in graph.node if is_norm(node)] + inner


def _observe(model: Any, level: list[Any], feed: Feed) -> dict[str, Moments]:
    session = Session(model, dict.fromkeys(node.input[0] for node in level), optimized=True)
    seen = {name: Moments() for name in session.outputs}
    for given in feed:
        for name, x in session.run(given).items():
            if x.ndim < 2:
                raise ValueError(f"{name!r} goes into a batch norm, but has shape {x.shape}")
            seen[name].update(x)
    return seen


def _settle(scope: Scope, node: Any, seen: Moments) -> Recalibrated:
    """Writes the statistics into the model."""
    name = label(node)
    old_mean, old_var = (np.asarray(scope.constants.get(each), np.float64) for each in node.input[3:5])
    dtypes = [np.asarray(scope.constants.get(each)).dtype for each in node.input[3:5]]
    mean, var = seen.mean, seen.var()
    if seen.count.min() == 0:
        raise ValueError(f"no values reach batch norm {name!r}")
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        raise ValueError(f"values reach batch norm {name!r} that are not finite")
    if mean.shape != old_mean.shape:
        raise ValueError(f"batch norm {name!r} has {old_mean.size} channels, and its x has {mean.size}")
    parted = False
    for index, (values, dtype, what) in enumerate(zip((mean, var), dtypes, ("mean", "variance")), start=3):
        old = node.input[index]
        scope.put(node, index, rounded(values, dtype, f"the {what} of batch norm {name!r}"), f"{name}_{what}")
        parted |= node.input[index] != old and bool(scope.users.get(old))
    eps = attributes(node).get("epsilon", EPSILON)
    with np.errstate(all="ignore"):
        moved = float(np.max(abs(mean - old_mean) / np.sqrt(old_var + eps)))
        ratio = (var + eps) / (old_var + eps)
    return Recalibrated(name, int(seen.count.max()), moved, (float(ratio.min()), float(ratio.max())), parted)
