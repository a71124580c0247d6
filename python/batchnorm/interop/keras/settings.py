# SPDX-License-Identifier: Apache-2.0
"""The arguments with which the Keras layer is made, and the config that holds them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ..._core.options import flag, number
from .arguments import POLICIES, Initializer, clipping_of, config_of, dtype_of, fraction, initializer_of, policy_of

Self = TypeVar("Self", bound="Settings")

INITIALIZED = "beta", "gamma", "moving_mean", "moving_variance"
_NOT_HERE = "beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint"
_NUMBERS = itertools.count()


class Settings:
    """The arguments of BatchNormalization, checked, as attributes."""

    beta_initializer: Initializer
    gamma_initializer: Initializer
    moving_mean_initializer: Initializer
    moving_variance_initializer: Initializer

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: None = None,
        gamma_regularizer: None = None,
        beta_constraint: None = None,
        gamma_constraint: None = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float | None] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
    ) -> None:
        given = locals()
        for none in _NOT_HERE:
            if given[none] is not None:
                raise ValueError(f"{none} is {given[none]!r}, expected None: gradients are for the caller to change")
        if flag(synchronized, "synchronized"):
            raise ValueError("synchronized is True, expected False: bn.functional.steps is for several processes")
        try:
            self.axis = operator.index(axis)
        except TypeError:
            raise TypeError(f"axis is {axis!r}, expected an int") from None
        self.momentum = fraction(momentum, "momentum")
        self.epsilon = number(epsilon, "epsilon")
        if not 0 <= self.epsilon < np.inf:
            raise ValueError(f"epsilon is {self.epsilon}, expected a finite number of at least 0")
        self.center, self.scale = flag(center, "center"), flag(scale, "scale")
        for weight in INITIALIZED:
            key = f"{weight}_initializer"
            setattr(self, key, initializer_of(given[key], key))
        self.renorm = flag(renorm, "renorm")
        self.renorm_clipping = clipping_of(renorm_clipping)
        self.renorm_momentum = fraction(renorm_momentum, "renorm_momentum")
        self.trainable = trainable
        self._policy = policy_of(dtype)
        self.compute_dtype, self.variable_dtype = POLICIES[self._policy]
        self._compute, self._variable = dtype_of(self.compute_dtype), dtype_of(self.variable_dtype)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is of type {type(name).__name__}, expected a text")
        self.name = name if name is not None else _next_name()

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = flag(value, "trainable")

    @property
    def dtype(self) -> str:
        return self.variable_dtype

    def get_config(self) -> dict[str, Any]:
        """The arguments that the layer was made with, under Keras's names, as JSON knows them.

        TypeError if an initializer is a function. Keras's own layer takes the config as well; an array is a Constant in
        it, which Keras documents for single numbers.
        """
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self._policy}
        for key in ("axis", "momentum", "epsilon", "center", "scale"):
            config[key] = getattr(self, key)
        for weight in INITIALIZED:
            key = f"{weight}_initializer"
            config[key] = config_of(getattr(self, key), key)
        config.update(dict.fromkeys(_NOT_HERE), synchronized=False, renorm=self.renorm)
        clipping = None if self.renorm_clipping is None else dict(self.renorm_clipping)
        return {**config, "renorm_clipping": clipping, "renorm_momentum": self.renorm_momentum}

    @classmethod
    def from_config(cls: type[Self], config: Mapping[str, Any]) -> Self:
        """A layer, not yet built, from what get_config() gave, or that of Keras's layer."""
        if not isinstance(config, Mapping):
            raise TypeError(f"config is of type {type(config).__name__}, expected a dict")
        return cls(**config)


def _next_name() -> str:
    """batch_normalization, batch_normalization_1, and so on."""
    n = next(_NUMBERS)
    return f"batch_normalization_{n}" if n else "batch_normalization"
