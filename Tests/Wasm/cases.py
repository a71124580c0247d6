# SPDX-License-Identifier: Apache-2.0
"""Writes what the native library makes of many calls, to the bit, for tests.mjs, which makes the same calls.

    BATCHNORM_LIBRARY=libbatchnorm.so PYTHONPATH=python python3 cases.py > cases.jsonl

A line is a layer: its arrays, and the calls on them in order, each a function of batchnorm.mjs with its options, the
arrays that it is given, and its results. An array is JavaScript's type and the bytes in base64.
"""

from __future__ import annotations

import base64
import ctypes
import itertools
import json
from collections.abc import Iterator

import numpy as np
from batchnorm._core.library import lib
from batchnorm._core.structs import Activation, DType, Epilogue, Options, Shape

SEED = 20261121
# Elements, and what their arrays hold: those of 16 bits are bits, beside parameters of float32.
ELEMENTS = {"float32": np.float32, "float64": np.float64, "float16": np.uint16, "bfloat16": np.uint16}
TYPES = {"float32": "Float32Array", "float64": "Float64Array", "uint16": "Uint16Array"}
ACTIVATIONS = {
    "identity": Activation.IDENTITY,
    "relu": Activation.RELU,
    "leakyRelu": Activation.LEAKY_RELU,
    "clip": Activation.CLIP,
    "hardSwish": Activation.HARD_SWISH,
    "silu": Activation.SILU,
}
# Options by their names in C, and those of an epilogue.
FIELDS = {"eps": "eps", "momentum": "momentum", "biasedRunningVar": "biased_running_var", "frozen": "frozen"}
EPILOGUE = {"activation", "slope", "low", "high"}
# Every length of a tail, in planes, in rows and in columns; and what is empty.
TAILS = [shape for n in range(1, 34) for shape in ((3, 2, n), (5, n, 1), (n + 1, 3, 1))]
SMALL = [*TAILS, (0, 3, 4), (3, 2, 0), (1, 2, 5)]
# Several blocks of planes, of rows, of short planes; planes of which several share a cache.
LARGE = [(2, 1, 17_000), (1100, 64, 1), (16, 24, 49), (700, 4, 25), (2, 40, 257)]


def encoded(values: np.ndarray, element: str) -> np.ndarray:
    if element == "float16":
        return values.astype(np.float16).view(np.uint16)
    if element == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(ELEMENTS[element])


def address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


class Layer:
    """Arrays of a shape and an element, and what the library makes of them; `options` are those of batchnorm.mjs."""

    def __init__(self, shape: tuple[int, int, int], element: str, rng: np.random.Generator, special: float) -> None:
        self.shape = Shape(ctypes.sizeof(Shape), *shape, 0, 0, 0, None)
        self.dtype = DType[element.upper()]
        values = rng.normal(rng.choice([0, 1, 100, 1e4]), rng.choice([1e-3, 1, 30]), shape)
        if special != 0 and values.size:
            values.flat[rng.integers(values.size)] = special
        parameter = np.float64 if element == "float64" else np.float32
        x, dy, residual = (encoded(v, element) for v in (values, rng.normal(size=shape), rng.normal(size=shape)))
        gamma, beta, mean = (rng.normal(size=shape[1]).astype(parameter) for _ in range(3))
        variance = rng.uniform(0.1, 4, shape[1]).astype(parameter)
        self.arrays = {"x": x, "dy": dy, "residual": residual, "gamma": gamma, "beta": beta}
        self.arrays.update(runningMean=mean, runningVar=variance)

    def call(self, name: str, options: dict, *arrays: np.ndarray, **epilogue: np.ndarray | None) -> None:
        fields = {"eps": 1e-5, "momentum": 0.1}
        fields.update((FIELDS[key], value) for key, value in options.items() if key in FIELDS)
        given = Options(struct_size=ctypes.sizeof(Options), **fields)
        if "activation" in options:
            bounds = {"slope": 0.01, "low": 0, "high": 6}
            bounds.update((key, value) for key, value in options.items() if key in bounds)
            pointers = {key: address(array) for key, array in epilogue.items()}
            activation = ACTIVATIONS[options["activation"]]
            given.epilogue = ctypes.pointer(Epilogue(ctypes.sizeof(Epilogue), activation, **bounds, **pointers))
        getattr(lib, name)(self.shape, self.dtype, *map(address, arrays), given)

    def statistics(self, count: int) -> list[np.ndarray]:
        return [np.empty(self.shape.channels) for _ in range(count)]

    def forward(self, name: str, options: dict, z: np.ndarray | None) -> dict[str, np.ndarray]:
        given = self.arrays
        y, (mean, invstd) = np.empty_like(given["x"]), self.statistics(2)
        running = given["runningMean"].copy(), given["runningVar"].copy()
        self.call(name, options, given["x"], given["gamma"], given["beta"], *running, y, mean, invstd, z=z)
        return {"y": y, "mean": mean, "invstd": invstd, "runningMean": running[0], "runningVar": running[1]}

    def backward(self, options: dict, z: np.ndarray | None, forward: dict) -> dict[str, np.ndarray]:
        given = self.arrays
        dx, dz = np.empty_like(given["x"]), None if z is None else np.empty_like(z)
        dgamma, dbeta = np.empty_like(given["gamma"]), np.empty_like(given["beta"])
        inputs = given["dy"], given["x"], given["gamma"], given["beta"], forward["mean"], forward["invstd"]
        self.call("bn_backward", options, *inputs, dx, dgamma, dbeta, z=z, dz=dz)
        return {"dx": dx, "dgamma": dgamma, "dbeta": dbeta} | ({} if dz is None else {"dz": dz})

    def moments(self) -> dict[str, np.ndarray]:
        count, mean, m2 = self.statistics(3)
        lib.bn_moments(self.shape, self.dtype, *map(address, (self.arrays["x"], count, mean, m2)), 0, None)
        return {"count": count, "mean": mean, "m2": m2}


def calls(layer: Layer, choices: list[dict], residual: bool) -> Iterator[dict]:
    """Training, inference, and their gradients, with the options of each choice."""
    own = ["residual"] if residual else []
    forward_takes = ["x", "gamma", "beta", "runningMean", "runningVar", *own]
    backward_takes = ["dy", "x"]  # the rest is in the forward call's saved
    z = layer.arrays["residual"] if residual else None
    for options in choices:
        epilogue = {key: value for key, value in options.items() if key in EPILOGUE}
        inference = {key: value for key, value in options.items() if key == "eps" or key in EPILOGUE}
        for function, name, chosen, frozen in (
            ("forwardTraining", "bn_forward_training", options, {}),
            ("forwardInference", "bn_forward_inference", inference, {"frozen": True}),
        ):
            forward = layer.forward(name, chosen, z)
            yield {"function": function, "options": chosen, "takes": forward_takes, "results": forward}
            chosen = epilogue | frozen
            gradients = layer.backward(chosen, z, forward)
            yield {"function": "backward", "options": chosen, "takes": backward_takes, "results": gradients}


def packed(array: np.ndarray) -> list[str]:
    return [TYPES[array.dtype.name], base64.b64encode(array.tobytes()).decode()]


def main() -> None:
    rng = np.random.default_rng(SEED)
    for element, (number, shape) in itertools.product(ELEMENTS, enumerate(SMALL + LARGE)):
        layer = Layer(shape, element, rng, special=[0, 0, 0, 0, 0, np.nan, np.inf][number % 7])
        activation = {"activation": list(ACTIVATIONS)[number % 6], "slope": 0.125, "low": -0.5, "high": 0.75}
        options = {"eps": [0.0, 1e-3][number // 2 % 2], "momentum": 0.25, "biasedRunningVar": number // 3 % 2 == 0}
        made = [{"function": "moments", "options": {}, "takes": ["x"], "results": layer.moments()}]
        made += calls(layer, [{}, {"eps": 0.0}] if shape in SMALL else [{}], residual=False)
        if shape in SMALL:
            made += calls(layer, [options | activation], residual=number // 6 % 2 == 0)
        line = {"shape": shape, "arrays": layer.arrays, "calls": made}
        print(json.dumps(line | ({"dtype": element} if element.endswith("16") else {}), default=packed))


if __name__ == "__main__":
    main()
