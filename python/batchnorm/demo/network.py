# SPDX-License-Identifier: Apache-2.0
"""A multilayer perceptron in NumPy, small enough to read in one go, with batch norm as a layer among the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable, Protocol

import numpy as np
import numpy.typing as npt

import batchnorm as bn

Array = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


class Layer(Protocol):
    """A layer computes, and turns the gradient with respect to its output into that with respect to its input."""

    def __call__(self, x: Array, /) -> Array: ...

    def backward(self, dy: Array, /) -> Array: ...


class Dense:
    """y = x @ weight + bias, with the initialization of He et al. (2015), made for ReLU."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, *, dtype: npt.DTypeLike) -> None:
        self.weight: Array = (rng.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)).astype(dtype)
        self.bias: Array = np.zeros(outputs, dtype)
        self.grad_weight = np.zeros_like(self.weight)
        self.grad_bias = np.zeros_like(self.bias)

    def __call__(self, x: Array, /) -> Array:
        self._x = x
        return x @ self.weight + self.bias

    def backward(self, dy: Array, /) -> Array:
        self.grad_weight = self._x.T @ dy
        self.grad_bias = dy.sum(axis=0)
        return dy @ self.weight.T


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    y: Array = 0.5 + 0.5 * np.tanh(0.5 * x)
    return y


# Each with its slope, of which y is all that has to be known.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Any]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (sigmoid, lambda y: y * (1 - y)),
}


class Activation:
    """An activation function by its name."""

    def __init__(self, name: str) -> None:
        self._function, self._slope = ACTIVATIONS[name]
        self.x: Array = np.zeros(0)

    def __call__(self, x: Array, /) -> Array:
        self.x = x  # public: the demo draws its distribution
        self._y = self._function(x)
        return self._y

    def backward(self, dy: Array, /) -> Array:
        dx: Array = dy * self._slope(self._y)
        return dx


Norm = Callable[[int], bn.BatchNorm]  # makes the layer for so many units


class Network:
    """Dense, batch norm (if wanted) and an activation for every hidden layer, then one dense layer to the logits.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    rng : numpy.random.Generator
        Draws the weights; the same ones, whatever stands between the dense layers.
    batch_norm : bool or function of the number of units
        True if each hidden layer has batch norm, or a function that makes it.
    activation : {"relu", "tanh", "sigmoid"}
    placement : {"before", "after"}
        On which side of the activation batch norm stands.
    first : function of the number of inputs, optional
        Makes a batch norm that the inputs go through.
    scale : float
        The factor of the first weights.
    dtype : dtype
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rng: np.random.Generator,
        *,
        batch_norm: bool | Norm,
        activation: str = "relu",
        placement: str = "before",
        first: Norm | None = None,
        scale: float = 1.0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        def norm(units: int) -> list[Layer]:
            if isinstance(batch_norm, bool):
                return [bn.BatchNorm(units, dtype=dtype)] if batch_norm else []
            return [batch_norm(units)]

        self.layers: list[Layer] = [first(sizes[0])] if first else []
        for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
            dense, nonlinear = Dense(inputs, outputs, rng, dtype=dtype), Activation(activation)
            dense.weight *= scale
            self.layers.append(dense)
            self.layers += [*norm(outputs), nonlinear] if placement == "before" else [nonlinear, *norm(outputs)]
        self.layers.append(Dense(sizes[-2], sizes[-1], rng, dtype=dtype))

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def parameters(self) -> Iterator[tuple[Array, Array]]:
        """Each trainable array with the gradient that the last `backward` left for it."""
        for layer in self.layers:
            if isinstance(layer, Dense):
                yield layer.weight, layer.grad_weight
                yield layer.bias, layer.grad_bias
            elif isinstance(layer, bn.BatchNorm) and layer.affine:
                yield layer.gamma, layer.grad_gamma
                yield layer.beta, layer.grad_beta

    def descend(self, learning_rate: float) -> None:
        """One step of stochastic gradient descent."""
        for value, gradient in self.parameters():
            value -= learning_rate * gradient

    @property
    def norms(self) -> list[bn.BatchNorm]:
        return [layer for layer in self.layers if isinstance(layer, bn.BatchNorm)]

    @property
    def activations(self) -> list[Activation]:
        return [layer for layer in self.layers if isinstance(layer, Activation)]

    def train(self) -> None:
        """Training mode: batch norm takes its statistics from the batch, and updates the running ones."""
        for norm in self.norms:
            norm.train()

    def eval(self) -> None:
        """Evaluation mode: batch norm takes the running statistics, and no sample depends on its neighbours."""
        for norm in self.norms:
            norm.eval()


def cross_entropy(logits: Array, labels: Labels) -> tuple[float, Array]:
    """The mean softmax cross-entropy of a batch, and its gradient with respect to the logits."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_probability)
    gradient[rows, labels] -= 1
    return float(-log_probability[rows, labels].mean()), gradient / len(labels)
