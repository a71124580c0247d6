# SPDX-License-Identifier: Apache-2.0
"""Writes values.txt: what every example has to arrive at, by the formulas in NumPy's float64.

A layer of 3 channels sees three batches of 4 samples of 6 positions (NCHW: outer 4, channels 3, inner 6), each forward,
backward and one step of gradient descent on gamma and beta; then the first batch again, in inference. Numbers are such
that float32 holds them: with i counting elements and k batches from 0,

    x[i]  = (i * 37 + k * 11) mod 101 / 8 - 5        dy[i] = (i * 53 + 7) mod 17 / 4 - 2
    gamma = 1, 2, 0.5     beta = 0, -1, 3     running_mean = 0     running_var = 1
    eps = 1e-5     momentum = 0.1     rate of descent = 0.01
"""

from pathlib import Path

import numpy as np

SHAPE = 4, 3, 6
OVER = 0, 2
EPS, MOMENTUM, RATE = 1e-5, 0.1, 0.01


def batch(k: int) -> np.ndarray:
    i = np.arange(np.prod(SHAPE))
    return ((i * 37 + k * 11) % 101 / 8 - 5).reshape(SHAPE)


def spread(v: np.ndarray) -> np.ndarray:
    return v[:, None]


def main() -> None:
    dy = ((np.arange(np.prod(SHAPE)) * 53 + 7) % 17 / 4 - 2).reshape(SHAPE)
    gamma, beta = np.array([1, 2, 0.5]), np.array([0.0, -1, 3])
    running_mean, running_var = np.zeros(3), np.ones(3)
    for k in range(3):
        x = batch(k)
        mean, var, count = x.mean(OVER), x.var(OVER), x.size // 3
        x_hat = (x - spread(mean)) / np.sqrt(spread(var) + EPS)
        y = spread(gamma) * x_hat + spread(beta)
        running_mean += MOMENTUM * (mean - running_mean)
        running_var += MOMENTUM * (var * count / (count - 1) - running_var)
        dbeta, dgamma = dy.sum(OVER), (dy * x_hat).sum(OVER)
        through = dy - spread(dbeta) / count - x_hat * spread(dgamma) / count
        dx = spread(gamma / np.sqrt(var + EPS)) * through
        gamma, beta = gamma - RATE * dgamma, beta - RATE * dbeta
    scale = gamma / np.sqrt(running_var + EPS)
    inferred = spread(scale) * (batch(0) - spread(running_mean)) + spread(beta)
    results = {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "gamma": gamma, "beta": beta}
    results.update(running_mean=running_mean, running_var=running_var, inferred=inferred)
    lines = [" ".join([name, str(v.size), *(f"{value:.9g}" for value in v.ravel())]) for name, v in results.items()]
    (Path(__file__).parent / "values.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
