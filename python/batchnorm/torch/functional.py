# SPDX-License-Identifier: Apache-2.0
"""batch_norm() for tensors, with gradients."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from . import graphs, operators
from .compiled import trained
from .differentiation import normalized
from .taking import Smallest, is_right, takes
from .watching import is_watched

__all__ = ["batch_norm", "set_in_graphs", "set_smallest"]


def batch_norm(
    input: Tensor,  # noqa: A002 - the name that PyTorch has for it
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm, by this library where it trains.

    A call goes to PyTorch's own function if it evaluates, if a graph is made of it (torch.compile, torch.export,
    torch.jit.trace), if the tensors are small, empty, on another device than the CPU, or none that this library takes,
    and if something is wrong with the arguments, for PyTorch's words about it.

    Parameters
    ----------
    input : Tensor of shape (N, C) or (N, C, ...)
        Of float32, float64, float16 or bfloat16. Its memory format stays.
    running_mean, running_var : Tensor of shape (C,), or None
        In training they are updated in place.
    weight, bias : Tensor of shape (C,), optional
        Of the dtype of `input`, or float32 beside one of 16 bits.
    training : bool, default False
        True if `input` is normalized with its own statistics.
    momentum : float, default 0.1
        Weight of the new batch.
    eps : float, default 1e-5
        Added to the variance.

    Returns
    -------
    Tensor
        With a gradient, whose own gradient is known as well, in either mode of differentiation, and under the
        transforms of torch.func. Third derivatives are not known.
    """
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y = trained(input, weight, bias, running_mean, running_var, None, momentum, eps)
    return by_python(input, running_mean, running_var, weight, bias, momentum, eps) if y is None else y


def by_python(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """batch_norm() in training without the operators of batchnorm-torch."""
    if not is_watched() and takes(x, mean, var, weight, bias):
        return normalized(x, weight, bias, mean, var, momentum, eps)
    if graphs.has_operator() and is_right(x, mean, var, weight, bias):
        return graphs.batch_norm(x, weight, bias, mean, var, momentum, eps)
    return functional.batch_norm(x, mean, var, weight, bias, True, momentum, eps)


def set_smallest(elements: int | None) -> None:
    """Leaves tensors of fewer elements to PyTorch in training.

    Parameters
    ----------
    elements : int or None
        0: none of them, so that all have this library's exactness. None: those in which PyTorch was found to be
        faster, which is the default: none with the operators of batchnorm-torch; without them those of less than
        32,768 elements, or 131,072 of 16 bits or in channels_last.
    """
    if elements is not None and elements < 0:
        raise ValueError(f"elements is {elements}, expected at least 0")
    Smallest.told = elements


def set_in_graphs(operator: bool) -> None:
    """Puts this library's operator into the graphs of torch.compile and torch.export, where a layer trains.

    PyTorch's own compiler computes batch norm in one pass with what stands around it, which is faster, and is the
    default. With the operator a graph has this library's exactness, and its bits. It has the number of
    threads that bn.set_num_threads() sets, or the last call outside of a graph.

    Parameters
    ----------
    operator : bool
        True needs the package batchnorm-torch, or RuntimeError is raised. Graphs that were made before stay as they
        are: call torch.compiler.reset().
    """
    if operator and not operators.THERE:
        raise RuntimeError("graphs need the operators of the package batchnorm-torch, which is not installed")
    graphs.Chosen.operator = operator
