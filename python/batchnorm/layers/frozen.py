# SPDX-License-Identifier: Apache-2.0
"""BatchNorm2d without anything to train, as in the backbones of detection networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._core import direct
from .._core.arrays import Array, kind_of, tensor
from .._core.options import options
from .._core.public import publish
from .._core.weights import Masked
from ..functional import native
from ..functional.extended_backward import known_parameters
from ..functional.saved import SavedStatistics
from ..settings.activations import Activation
from ..settings.groups import Groups
from .layer import BatchNorm
from .ranked import BatchNorm2d, _RankedBatchNorm
from .setting import Setting


class _Always(Setting):
    """A setting that stays as it is."""

    def __set__(self, layer: Any, value: Any) -> None:
        if value is not self.default:
            raise ValueError(f"{self.key[1:]} is {value!r}, but a {type(layer).__name__} is always {self.key[1:]}")
        super().__set__(layer, value)


@publish
class FrozenBatchNorm2d(_RankedBatchNorm):
    """y = weight * (x - running_mean) / sqrt(running_var + eps) + bias, in training and evaluation alike.

    It is torchvision.ops.FrozenBatchNorm2d: all four arrays are constants to the gradient, and state_dict() has no
    num_batches_tracked. A new layer has weight 1, bias 0, running_mean 0 and running_var 1. (Layers of Detectron2 begin
    with a running_var of 1 - eps.) For a layer that only keeps its statistics, and trains gamma and beta, see
    BatchNorm2d(frozen=True).

    Parameters
    ----------
    num_features : int
        Number of channels, C, of x of shape (N, C, H, W).
    eps : float, default 1e-5
        Added to running_var.
    dtype, param_dtype, activation, groups
        As in BatchNorm.

    Attributes
    ----------
    grad_gamma, grad_beta : None
    training : bool
        It makes no difference here.

    Raises
    ------
    ValueError, TypeError
        As in BatchNorm2d, and by a call of a layer whose running statistics were taken away.

    Examples
    --------
    >>> import numpy as np
    >>> import batchnorm as bn
    >>> layer = bn.FrozenBatchNorm2d(2, eps=0)
    >>> layer.load_state_dict({"weight": np.float32([1, 2]), "bias": np.float32([0, 1]),
    ...                        "running_mean": np.float32([5, 5]), "running_var": np.float32([1, 4])})
    >>> x = np.full((1, 2, 1, 3), 7, np.float32)
    >>> print(layer(x)[0, :, 0])
    [[2. 2. 2.]
     [3. 3. 3.]]
    >>> print(layer.backward(x)[0, :, 0], layer.grad_gamma)
    [[7. 7. 7.]
     [7. 7. 7.]] None
    """

    ranks = (4,)
    frozen = _Always(True)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        dtype: DTypeLike | None = np.float32,
        *,
        param_dtype: DTypeLike | None = None,
        activation: Activation | None = None,
        groups: Groups | None = None,
    ) -> None:
        more: dict[str, Any] = {"param_dtype": param_dtype, "activation": activation, "groups": groups}
        super().__init__(num_features, eps, dtype=dtype, frozen=True, **more)

    @classmethod
    def convert(cls, layer: BatchNorm) -> FrozenBatchNorm2d:
        """A frozen layer with copies of the arrays of a BatchNorm2d, or a BatchNorm with axis 1, as from_state() gives.

        A layer that is frozen already is returned as it is.

        eps, dtypes, activation, groups and the flag `training` go with it. A layer without gamma and beta has them
        afterwards, 1 and 0.

        Raises
        ------
        TypeError
            `layer` is no BatchNorm.
        ValueError
            It has another axis, no running statistics, or such as load_state_dict() refuses.

        Examples
        --------
        >>> import numpy as np
        >>> import batchnorm as bn
        >>> layer = bn.BatchNorm2d(3)
        >>> y = layer(np.ones((2, 3, 4, 4), np.float32))
        >>> frozen = bn.FrozenBatchNorm2d.convert(layer)
        >>> print(frozen, frozen.running_mean)
        FrozenBatchNorm2d(3, eps=1e-05) [0.1 0.1 0.1]
        """
        if isinstance(layer, FrozenBatchNorm2d):
            return layer
        of_another_rank = isinstance(layer, _RankedBatchNorm) and not isinstance(layer, BatchNorm2d)
        if of_another_rank or not isinstance(layer, BatchNorm):
            raise TypeError(f"layer is of type {kind_of(layer)}, expected BatchNorm2d, or a BatchNorm with axis 1")
        if layer.axis != 1:
            raise ValueError(f"layer has its channels at axis {layer.axis}, expected 1")
        missing = [name for name in ("running_mean", "running_var") if getattr(layer, name) is None]
        if missing:
            raise ValueError(f"layer has no {missing[0]}, which it would be frozen to")
        more: dict[str, Any] = {"param_dtype": layer.param_dtype, "activation": layer.activation}
        frozen = cls(layer.num_features, layer.eps, layer.dtype, groups=layer.groups, **more)  # type: ignore[arg-type]
        frozen.load_state_dict({**frozen.state_dict(), **layer.state_dict()})
        return frozen.train(layer.training)

    def __call__(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        residual: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        masked: Masked = "normalize",
        training: bool | None = None,
    ) -> Array:
        """See BatchNorm.__call__(). `out` may be x: without an activation, backward() has no use for it."""
        more: dict[str, Any] = {"residual": residual, "weights": weights, "lengths": lengths}
        y = super().__call__(x, out, masked=masked, training=training, **more)
        last = self._last
        if last is not None and type(last[1]) is SavedStatistics:
            self._last = None, *last[1:]
        return y

    def backward(self, dy: ArrayLike, out: Array | None = None) -> Array:
        """dx = weight * dy / sqrt(running_var + eps), the only gradient, and grad_residual if there was a residual.

        See BatchNorm.backward(). Without activation, residual, weights and groups the layer keeps no x, and dx has the
        memory order of dy.
        """
        last = self._last
        if last is None or type(last[1]) is not SavedStatistics:
            dx = super().backward(dy, out)
            self.grad_gamma = self.grad_beta = None
            return dx
        saved = last[1]
        dy = tensor(dy, "dy")
        if dy.dtype != self.dtype:
            raise TypeError(f"dy has dtype {dy.dtype}, expected {self.dtype}, the dtype of the layer")
        if dy.shape != saved._shape:
            raise ValueError(f"dy has shape {dy.shape}, expected {saved._shape}, the shape of x")
        fit, _, _, dx, dy_address, _, dx_address = direct.backward(dy, dy, self.axis, out)
        fit, parameters = known_parameters(saved, None, fit)
        told = options(frozen=True, param_code=fit.param_code)
        native.backward(fit, dy_address, None, parameters, saved._addresses(), dx_address, (None, None), told)
        self.grad_residual = None
        return dx

    def named_parameters(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """None: weight and bias are not trained."""
        return iter(())

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies under PyTorch's names: weight, bias, running_mean, running_var."""
        return {key: array for key, array in super().state_dict().items() if key != "num_batches_tracked"}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """See BatchNorm.load_state_dict(). num_batches_tracked, which a BatchNorm2d has, is passed over."""
        super().load_state_dict({key: state[key] for key in state if key != "num_batches_tracked"}, strict)

    def extra_repr(self) -> str:
        """The text that repr() has between the brackets."""
        text = f"{self.num_features}, eps={self.eps:g}"
        text += "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        for name in ("activation", "groups"):
            text += f", {name}={getattr(self, name)!r}" if getattr(self, name) else ""
        return text
