# SPDX-License-Identifier: Apache-2.0
"""A multilayer perceptron in NumPy, small enough to read in one go, with batch norm as a layer among the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import batchnorm as bn

Array = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


class Layer(Protocol):
    """What a layer has to do: compute, and turn the loss gradient by its output into the one by its input."""

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


class ReLU:
    """y = max(x, 0)."""

    def __init__(self) -> None:
        self.x: Array = np.zeros(0)

    def __call__(self, x: Array, /) -> Array:
        self.x = x  # public: the demo draws its distribution
        return np.maximum(x, 0)

    def backward(self, dy: Array, /) -> Array:
        return dy * (self.x > 0)


class Network:
    """Dense, batch norm (if wanted) and ReLU for every hidden layer, then one dense layer to the logits."""

    def __init__(
        self,
        sizes: Sequence[int],
        rng: np.random.Generator,
        *,
        batch_norm: bool,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.layers: list[Layer] = []
        for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
            self.layers.append(Dense(inputs, outputs, rng, dtype=dtype))
            if batch_norm:
                self.layers.append(bn.BatchNorm(outputs, dtype=dtype))
            self.layers.append(ReLU())
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
            elif isinstance(layer, bn.BatchNorm):
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
    def activations(self) -> list[ReLU]:
        return [layer for layer in self.layers if isinstance(layer, ReLU)]

    def train(self) -> None:
        """Batch norm takes its statistics from the batch, and updates the running ones."""
        for norm in self.norms:
            norm.train()

    def eval(self) -> None:
        """Batch norm takes the running statistics: no sample depends on its neighbours any more."""
        for norm in self.norms:
            norm.eval()


def cross_entropy(logits: Array, labels: Labels) -> tuple[float, Array]:
    """Mean softmax cross-entropy of a batch, and its gradient by the logits."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_probability)
    gradient[rows, labels] -= 1
    return float(-log_probability[rows, labels].mean()), gradient / len(labels)
