# SPDX-License-Identifier: Apache-2.0
"""PyTorch's names for parts of a layer: weight and bias, their gradients, parameters(), zero_grad()."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from .parameters import Parameter, Parameters

NO_GRADIENTS: dict[str, Any] = dict.fromkeys(("grad_gamma", "grad_beta", "grad_residual"))


class Named(Parameters):
    """See BatchNorm, which this is a part of."""

    if TYPE_CHECKING:  # as of gamma and beta
        grad_gamma = Parameter()
        grad_beta = Parameter()
        grad_residual = Parameter()

    @property
    def weight(self) -> NDArray[Any]:
        """PyTorch's name of gamma."""
        return self.gamma

    @weight.setter
    def weight(self, value: ArrayLike | None) -> None:
        self.gamma = value

    @property
    def bias(self) -> NDArray[Any]:
        """PyTorch's name of beta."""
        return self.beta

    @bias.setter
    def bias(self, value: ArrayLike | None) -> None:
        self.beta = value

    def parameters(self) -> Iterator[NDArray[Any]]:
        """gamma and beta, unless they are None: the arrays that an optimizer changes in place."""
        return (array for _, array in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Pairs of a parameter's name in state_dict(), "weight" or "bias", and the parameter."""
        named: tuple[tuple[str, Any], ...] = ("weight", self.gamma), ("bias", self.beta)
        return ((name, array) for name, array in named if array is not None)

    def zero_grad(self) -> None:
        """Forgets the gradients: grad_gamma, grad_beta and grad_residual are None.

        Nothing depends on it, as backward() does not add to them.
        """
        self.__dict__.update(NO_GRADIENTS)

    @property
    def grad_weight(self) -> NDArray[Any]:
        """PyTorch's name of grad_gamma."""
        return self.grad_gamma

    @grad_weight.setter
    def grad_weight(self, value: Any) -> None:
        self.grad_gamma = value

    @property
    def grad_bias(self) -> NDArray[Any]:
        """PyTorch's name of grad_beta."""
        return self.grad_beta

    @grad_bias.setter
    def grad_bias(self, value: Any) -> None:
        self.grad_beta = value
