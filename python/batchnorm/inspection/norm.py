# SPDX-License-Identifier: Apache-2.0
"""A batch norm as a file has it, whatever the framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NAMES = "gamma", "beta", "mean", "var"


@dataclass
class Norm:
    """A batch norm of a file.

    Parameters
    ----------
    name : str
        As the file calls the layer or node.
    framework : str
        Whose names or operator it has.
    gamma, beta, mean, var : numpy.ndarray, optional
        In float64; None if there is none, or it is not known.
    eps, momentum : float, optional
        As the library has them: momentum is the weight of the new batch. None where the file does not say.
    assumed_eps : float
        The framework's default, for what follows from eps where the file does not say.
    batches : int, optional
        The number of batches that it has seen, if it is counted.
    in_training : str, default ""
        The setting by which it takes the statistics of each batch, even in inference.
    unknown : str, default ""
        Why there are no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from batchnorm.inspection import Norm
    >>> norm = Norm("bn1", "pytorch", mean=np.zeros(2), var=np.array([3.0, 8.0]), eps=1.0)
    >>> norm.channels, norm.scale()
    (2, array([0.5       , 0.33333333]))
    """

    name: str
    framework: str
    gamma: Array | None = None
    beta: Array | None = None
    mean: Array | None = None
    var: Array | None = None
    eps: float | None = None
    momentum: float | None = None
    assumed_eps: float = 1e-5
    batches: int | None = None
    in_training: str = ""
    unknown: str = ""
    dtypes: dict[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """The number of channels; 0 if it is not known."""
        return next((array.size for array in (self.mean, self.var, self.gamma) if array is not None), 0)

    @property
    def eps_or_assumed(self) -> float:
        """The eps of the file or, without one, its framework's default."""
        return self.assumed_eps if self.eps is None else self.eps

    def scale(self) -> Array:
        """|gamma| / sqrt(var + eps): what folding multiplies the weights before it by."""
        assert self.var is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            scale: Array = 1 / np.sqrt(self.var + self.eps_or_assumed)
        return scale if self.gamma is None else np.abs(self.gamma) * scale

    def take(self, arrays: Mapping[str, Array | None]) -> Norm:
        """Takes the numbers of the batch norm if they fit together; otherwise notes the reason."""
        there = {name: array for name, array in arrays.items() if array is not None}
        for name, array in there.items():
            try:
                if array.dtype.kind == "c":
                    raise TypeError
                with np.errstate(invalid="ignore"):  # a signalling NaN
                    setattr(self, name, np.asarray(array, np.float64).reshape(-1))
            except (TypeError, ValueError):
                self.unknown = f"its {name} is of dtype {array.dtype}"
            self.dtypes[name] = str(array.dtype)
        sizes = {name: array.size for name, array in there.items()}
        if not self.unknown and len(set(sizes.values())) > 1:
            self.unknown = "its arrays do not fit together: " + ", ".join(f"{n} has {s}" for n, s in sizes.items())
        elif not self.unknown and sizes and not next(iter(sizes.values())):
            self.unknown = "its arrays are empty"
        if self.unknown:
            self.gamma = self.beta = self.mean = self.var = None
        return self
