# SPDX-License-Identifier: Apache-2.0
"""Running statistics of all data, in place of a moving average of batches ("precise" batch normalization)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable

from .._core.arrays import kind_of
from .._core.options import at_least_one, flag
from .layer import BatchNorm
from .observer import Population
from .passes import Pass, iter_of, settle_in_turn

# The attributes of an observed layer that a call changes.
_CHANGED = ("training", "grad_gamma", "grad_beta", "grad_residual", "_last")


def recalibrate(
    layers: BatchNorm | Sequence[BatchNorm],
    forward: Callable[[Any], Any],
    batches: Iterable[Any],
    *,
    num_batches: int | None = None,
    progress: bool | None = None,
    layerwise: bool = False,
) -> None:
    """Gives layers the mean and the variance of all that goes into them, as running statistics.

    It is for weights that have changed since the running statistics were gathered, for an average of weights, or for
    other data (Wu and Johnson, arXiv:2105.07576, section 3). While it runs, every layer normalizes each batch
    with the batch's own statistics, whatever train(), eval() and `source` say, and updates nothing; the moments of the
    inputs are pooled exactly. PyTorch's update_bn() averages the batches' variances instead, which leaves out the
    differences of their means, and gives every batch the same weight, whatever its size.

    For a layer without an earlier one, these are the statistics of its inputs in evaluation. The inputs of a later
    layer have gone through running statistics in evaluation, not through those of each batch, and their mean and
    variance differ, the more so the smaller the batches. With `layerwise` they are right: one layer after the
    other, in the order in which they are called, while those before it evaluate with their new statistics already.

    If all goes well, running_mean and running_var (as `unbiased` of the layer says) are those of the population, and
    num_batches_tracked is the number of batches that the layer saw, which is how often it was called. In any case, and
    after an exception, all else is what it was before: training, gradients, and what backward() knows.

    Parameters
    ----------
    layers : BatchNorm or sequence of BatchNorm
        A layer that is there twice counts once.
    forward : function of a batch
        Calls the layers. Its result is ignored.
    batches : iterable
        The arguments of `forward`, one for each call.
    num_batches : int, optional
        The number of batches that are used; by default all.
    progress : bool or None, default None
        True for a bar of tqdm. None: if stderr is a terminal and tqdm is installed.
    layerwise : bool, default False
        True if later layers get the statistics of their inputs in evaluation. It takes as many passes as there are
        layers, so that `batches` has to be something that can be gone through again, such as a list, and `forward` has
        to leave the batches as they are. A layer that is called several times for a batch has all of its calls pooled;
        one whose input depends on its own output sees that output as training has it.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit, or a layer: it keeps no running statistics, or is frozen.
        In between: a batch that is empty reaches a layer, or one that makes its statistics infinite or NaN; with
        `layerwise`, the layers come in another order than in an earlier batch.
        At the end: there were too few batches, or none; `forward` never called a layer; the population is one value per
        channel, which has no unbiased variance; its variance is beyond `param_dtype`.
    RuntimeError
        The layer is being recalibrated already, or is lazy and knows of no channels.
    ImportError
        `progress` is True and tqdm is not installed.

    Notes
    -----
    Weights, lengths and masks of a call count as they do in training. With Segments or Split each group has the moments
    of its own samples, and groups without samples keep what they have. Ghost batches are normalized one by one, pooled
    in one population, and count as the one batch that they are made of. Running(nonfinite="skip") leaves out a batch
    whose mean or variance is infinite or NaN. As in training, it is what is stored that has to be finite in
    `param_dtype`: here the statistics of all batches, so that the variance of one of them may be beyond float16.
    Running(single_value="running") normalizes a single value with the running statistics there were, but here it counts
    as any other value.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.BatchNorm1d(1, dtype=np.float64)
    >>> batches = np.array([[[1.0], [3.0]], [[5.0], [7.0]]])
    >>> bn.recalibrate(layer, layer, batches, progress=False)
    >>> print(layer.running_mean, layer.running_var.round(4), layer.num_batches_tracked)
    [4.] [6.6667] 2
    """
    populations = _populations(layers)
    if not callable(forward):
        raise TypeError(f"forward is of type {type(forward).__name__}, expected a function of a batch")
    if num_batches is not None:
        num_batches = at_least_one(num_batches, "num_batches")
    if flag(layerwise, "layerwise") and len(populations) > 1 and iter_of(batches) is batches:
        kind = type(batches).__name__
        raise TypeError(f"batches is of type {kind}, which can be gone through once, expected a list or the like")
    run = Pass(forward, batches, num_batches, progress)
    with _observed(populations):
        if layerwise:
            settle_in_turn(populations, run)
            return
        run(populations)
        found = [population.statistics() for population in populations]
        for population, statistics in zip(populations, found):
            population.write(statistics)


def _populations(layers: Any) -> list[Population]:
    """One for each layer, under the name that it has in `layers`."""
    named = {"layers": layers}
    if not isinstance(layers, BatchNorm):
        try:
            named = {f"layers[{index}]": layer for index, layer in enumerate(layers)}
        except TypeError:
            kind = type(layers).__name__
            raise TypeError(f"layers is of type {kind}, expected a BatchNorm or a sequence of them") from None
    if not named:
        raise ValueError("layers is empty")
    for name, layer in named.items():
        if not isinstance(layer, BatchNorm):
            raise TypeError(f"{name} is of type {kind_of(layer)}, expected a BatchNorm")
    names = {layer: name for name, layer in reversed(named.items())}
    return [Population(layer, names[layer]) for layer in dict.fromkeys(named.values())]


@contextmanager
def _observed(populations: list[Population]) -> Iterator[None]:
    """The layers report to their populations within, and are as before afterwards."""
    before = [{name: getattr(population.layer, name) for name in _CHANGED} for population in populations]
    try:
        for population in populations:
            population.layer._observer = population
            population.layer.training = True
        yield
    finally:
        for population, kept in zip(populations, before):
            population.layer._observer = None
            for name, value in kept.items():
                setattr(population.layer, name, value)
