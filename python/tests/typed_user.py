# SPDX-License-Identifier: Apache-2.0
"""Code as users write it, for a type checker: test_typing.py says what mypy has to find. It is not run.

Lines that end in `# wrong` have to be errors, all others none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import batchnorm as bn

F = npt.NDArray[np.float32]


def step(x: F, layer: bn.BatchNorm) -> F:
    y = layer(x)
    layer.backward(np.ones_like(y))
    layer.gamma -= 0.1 * layer.grad_gamma
    for parameter in layer.parameters():
        parameter *= 0.5
    return y.astype(np.float32)


def right(x: F) -> None:
    y, saved = bn.forward_training(x, [1, 2], activation="relu", masked="zero", running=bn.Running("cumulative"))
    bn.forward_training(x, activation=bn.LeakyReLU(0.1), source=bn.Renorm(), groups=bn.Ghost(2))
    bn.backward(y, x, saved)[0].sum()
    layer = bn.BatchNorm2d(4, 1e-3, None, dtype=None, activation=None).eval()
    layer(x, training=False, lengths=[1], masked="keep").mean()
    layer.half().to("float64").astype(np.float32).gamma.sum()
    layer.gamma = [1.0, 2.0]
    layer.forward(x, residual=x)
    bn.LazyBatchNorm2d(1e-3, activation="silu", bias=False)
    bn.from_state({}, "pytorch")
    bn.moments(x, weights=x).mean.sum()


def wrong(x: F) -> None:
    bn.BatchNorm4d(3)  # wrong
    bn.forward_training(x, activation="rleu")  # wrong
    bn.forward_training(x, masked="zer0")  # wrong
    bn.forward_inference(x, running_mean=x, running_var=x, masked="zer0")  # wrong
    bn.normalize(x, x, x, activation="rleu")  # wrong
    bn.frozen_statistics(x, x, masked="zer0")  # wrong
    bn.backward_reduce(x, x, x, x, masked="zer0")  # wrong
    bn.Running("cumulativ")  # wrong
    bn.Running(single_value="runing")  # wrong
    bn.Running(nonfinite="skipp")  # wrong
    bn.from_state({}, "pytroch")  # wrong
    bn.to_state(bn.BatchNorm(3), "pytroch")  # wrong
    bn.BatchNorm2d(4)(x, lenghts=[1])  # wrong
    bn.BatchNorm2d(4)(x, masked="zer0")  # wrong
    bn.BatchNorm2d(4).forward(x, lenghts=[1])  # wrong
    bn.LazyBatchNorm2d(epss=1)  # wrong
    bn.LazyBatchNorm2d()(x, lenghts=[1])  # wrong
    bn.FrozenBatchNorm2d(3)(x, trainning=False)  # wrong
    bn.BatchNorm2d(4, activation="rleu")  # wrong
    bn.BatchNorm(4, activation="rleu")  # wrong
    bn.LazyBatchNorm1d(activation="rleu")  # wrong
    bn.FrozenBatchNorm2d(4, activation="rleu")  # wrong
    bn.BatchNorm(4, 1e-5, 0.1, True, True, None, -1)  # wrong
    bn.BatchNorm2d(4).gamma.shapes()  # wrong
    bn.BatchNorm2d(4).running_mean.maen()  # wrong
    bn.BatchNorm2d(4).grad_gamma.maen()  # wrong
    bn.BatchNorm2d(4).weight.maen()  # wrong
    bn.BatchNorm2d(4).momentun = 0.5  # wrong
    bn.fold_into_conv(bn.BatchNorm(3), x, None, padding="sane")  # wrong
    bn.fold_into_conv(bn.BatchNorm(3), x, None, padding_mode="zeroes")  # wrong
    bn.BatchNorm2d(4).training = "no"  # wrong


class Mine(bn.BatchNorm2d):
    def __call__(self, x: npt.ArrayLike, out: F | None = None, **told: Any) -> Any:
        return super().__call__(x, out, **told)
