# SPDX-License-Identifier: Apache-2.0
"""Writes cases.txt, or with --check compares it: calls with options, and what they have to give, by NumPy's float64.

The bindings with all options of the layer read this file in their tests. A line is a name and words:

    case NAME                 begins a case; what follows are its arguments, then what is expected
    dtype, call               float32, float64, float16 or bfloat16; training or inference. Backward follows either
    sizes, axis               the lengths of the axes, and which of them is the channels'
    strides TENSOR            of x, y, residual, dy, dx, in elements; where another has none they are those of x, and
                              without any all tensors are dense, outer x channels x inner. dz lies as dy does
    eps, momentum, biased, activation, slope, low, high, mask, groups, index, per_group, masked
                              options, where they are not the default; the samples of groups are sizes' first
    x, gamma, beta, running_mean, running_var, residual, weights, dy
                              arrays, as they lie in memory. What is not there is not given
    expect ARRAY              y, running_mean, running_var, mean, invstd, mask, dx, dgamma, dbeta, dz. Outputs begin as
                              7, which is what the gaps between slices keep
    refused WORD              the forward call is an error, whose message has this word; nothing else is expected

Elements of 16 bits are their bits, and are to be met exactly: no result is near the middle of two. Parameters beside
them are float32. Other values hold to 2e-5 in float32, and to 1e-11 in float64, relative to 1 or the value. After the
forward call a test overwrites gamma, beta, index, and where there is a mask the residual: backward needs none of them.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FILL = 7
PER_GROUP = ("statistics", "running", "parameters")


@dataclass
class Case:
    """A call with its options, and the arrays that it is given besides x and dy."""

    name: str
    sizes: tuple[int, ...] = (4, 3, 6)
    axis: int = 1
    dtype: str = "float32"
    call: str = "training"
    options: dict = field(default_factory=dict)
    strides: dict = field(default_factory=dict)
    arrays: tuple[str, ...] = ("gamma", "beta", "running_mean", "running_var")
    weights: tuple[float, ...] = ()


def to_bits(value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16":
        return value.astype(np.float16).view(np.uint16)
    bits = value.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def from_bits(bits: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16":
        return bits.view(np.float16).astype(float)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(float)


def is_decided(value: np.ndarray, dtype: str) -> bool:
    """No value is so near the middle of two elements that the rounding of float32 could tell."""
    value = value[value != 0]
    return all(np.array_equal(to_bits(value + e, dtype), to_bits(value, dtype)) for e in (-1e-6, 1e-6))


def activated(u: np.ndarray, options: dict) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """y, its derivative, and where the derivative has steps."""
    kind = options.get("activation", "identity")
    if kind == "silu":
        s = 1 / (1 + np.exp(-u))
        return u * s, s * (1 + u * (1 - s)), []
    if kind == "hard_swish":
        slope = np.where(u <= -3, 0, np.where(u >= 3, 1, (2 * u + 3) / 6))
        return u * np.clip(u + 3, 0, 6) / 6, slope, [-3, 3]
    if kind == "clip":
        low, high = options.get("low", 0), options.get("high", 6)
        return np.clip(u, low, high), ((u > low) & (u < high)) * 1.0, [low, high]
    slope = {"identity": 1, "relu": 0}.get(kind, options.get("slope", 0.01))
    return np.where(u > 0, u, slope * u), np.where(u > 0, 1, slope), [] if kind == "identity" else [0]


class Layer:
    """The formulas of batchnorm.h on x[sample, channel, position], a group of samples at a time."""

    def __init__(self, case: Case, channels: int, samples: int):
        self.o, self.case, self.channels = case.options, case, channels
        self.groups = self.o.get("groups", 1)
        own = self.o.get("per_group", ("statistics",))
        self.of = {kind: self.groups if "groups" in self.o and kind in own else 1 for kind in PER_GROUP}
        of_samples = np.repeat(np.arange(self.groups), samples // self.groups)
        self.index = np.array(self.o.get("index", of_samples))

    def row(self, kind: str, group: int) -> int:
        return group if self.of[kind] > 1 else 0

    def run(self, a: dict, w: np.ndarray) -> dict:
        """Arrays by name; parameters and statistics have a row per group. w has a value per sample and position."""
        o, x, z = self.o, a["x"], a.get("residual", 0)
        eps, momentum = o.get("eps", 1e-5), o.get("momentum", 0.1)
        training, masked = self.case.call == "training", o.get("masked", "normalize")
        gamma = a.get("gamma", np.ones((self.of["parameters"], self.channels)))
        beta = a.get("beta", np.zeros((self.of["parameters"], self.channels)))
        running = {n: a[n].copy() for n in ("running_mean", "running_var") if n in a}
        mean, var = (np.zeros((self.of["statistics"], self.channels)) for _ in range(2))
        for g in range(self.of["statistics"]):
            mine = self.index == g if self.of["statistics"] > 1 else self.index >= 0
            r = self.row("running", g)
            weight = w[mine][:, None, :]
            total = weight.sum()
            if not training:
                mean[g], var[g] = running["running_mean"][r], running["running_var"][r]
            elif total:
                mean[g] = (weight * x[mine]).sum((0, 2)) / total
                var[g] = (weight * (x[mine] - mean[g][:, None]) ** 2).sum((0, 2)) / total
                unbiased = var[g] if o.get("biased") else var[g] * total / (total - 1)
                for name, batch in (("running_mean", mean[g]), ("running_var", unbiased)):
                    if name in running:
                        running[name][r] += momentum * (batch - running[name][r])
        invstd = 1 / np.sqrt(var + eps)

        of_parameters = self.index if self.of["parameters"] > 1 else self.index * 0
        of_statistics = self.index if self.of["statistics"] > 1 else self.index * 0
        each_gamma, each_beta = gamma[of_parameters][:, :, None], beta[of_parameters][:, :, None]
        each_mean, each_invstd = mean[of_statistics][:, :, None], invstd[of_statistics][:, :, None]
        x_hat = (x - each_mean) * each_invstd
        u = each_gamma * x_hat + each_beta + z
        y, slope, steps = activated(u, o)
        assert all(np.abs(u - step).min() > 1e-3 for step in steps), "an element is at a step of the gradient"
        counts = np.broadcast_to((w > 0)[:, None, :] if masked != "normalize" else w[:, None, :] >= 0, x.shape)
        y = np.where(counts, y, x if masked == "keep" else 0)
        dz = np.where(counts, a["dy"] * slope, 0)
        dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(beta)
        dx = np.where(counts, each_gamma * each_invstd * dz, a["dy"] if masked == "keep" else 0)
        for p in range(self.of["parameters"]):
            mine = of_parameters == p
            dbeta[p], dgamma[p] = dz[mine].sum((0, 2)), (dz * x_hat)[mine].sum((0, 2))
        for s in range(self.of["statistics"] if training else 0):
            mine = of_statistics == s
            through, weight = (each_gamma * dz)[mine], w[mine][:, None, :]
            if not weight.size:
                continue
            sums = through.sum((0, 2)), (through * x_hat[mine]).sum((0, 2))
            both = sums[0][:, None] + x_hat[mine] * sums[1][:, None]
            dx[mine] -= np.where(counts[mine], weight / weight.sum() * both * each_invstd[mine], 0)
        y, dx, dz = y + 0.0, dx + 0.0, dz + 0.0  # -0 becomes 0
        results = {"y": y, "mean": mean, "invstd": invstd, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}
        if training:
            results.update(running)
        if "residual" in a:
            results["dz"] = dz
        if o.get("mask"):
            results["mask"] = slope == 1
        return results


def laid_out(logical: np.ndarray, strides: tuple[int, ...] | None, fill: float) -> np.ndarray:
    """The memory of an array with these strides."""
    if strides is None:
        return logical.ravel()
    memory = np.full(1 + sum((n - 1) * s for n, s in zip(logical.shape, strides)), fill, logical.dtype)
    view = np.lib.stride_tricks.as_strided(memory, logical.shape, [s * memory.itemsize for s in strides])
    view[...] = logical
    return memory


def words(values: np.ndarray) -> str:
    return " ".join(repr(v).removesuffix(".0") for v in values.ravel().tolist())


def text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(int(value) if value is True else value)


def attempt(case: Case, seed: int) -> list[str] | None:
    """The lines of a case; None if a result is not decided with these values."""
    rng = np.random.default_rng(seed)
    is_16 = case.dtype.endswith("16")
    outermost = case.axis > 0
    samples = case.sizes[0] if outermost else 1
    channels = case.sizes[case.axis]
    layer = Layer(case, channels, samples)

    def tensor(spread: float) -> np.ndarray:
        drawn = np.round(rng.normal(0.25, spread, case.sizes) * 8) / 8
        return from_bits(to_bits(drawn, case.dtype), case.dtype).reshape(case.sizes) if is_16 else drawn

    def columns(v: np.ndarray) -> np.ndarray:
        return np.moveaxis(v, case.axis, 1).reshape(samples, channels, -1)

    def back(v: np.ndarray) -> np.ndarray:
        rest = [n for i, n in enumerate(case.sizes) if i != case.axis]
        return np.moveaxis(v.reshape([rest[0], channels, *rest[1:]]), 1, case.axis)

    tensors = {"x": tensor(2), "dy": tensor(1)}
    if "residual" in case.arrays:
        tensors["residual"] = tensor(1)
    parameters = {}
    for name, kind, low, high in (
        ("gamma", "parameters", -2, 2),
        ("beta", "parameters", -1, 1),
        ("running_mean", "running", -1, 1),
        ("running_var", "running", 0.5, 4),
    ):
        if name in case.arrays:
            drawn = np.round(rng.uniform(low, high, (layer.of[kind], channels)) * 8) / 8
            parameters[name] = np.where((drawn == 0) & (name == "gamma"), 0.5, drawn)
    positions = tensors["x"].size // samples // channels
    w = np.array(case.weights or (1,) * samples * positions, float).reshape(samples, positions)
    try:
        found = layer.run({**{n: columns(v) for n, v in tensors.items()}, **parameters}, w)
    except AssertionError:
        return None

    lines = [f"case {case.name}", f"dtype {case.dtype}", f"call {case.call}", f"sizes {text(case.sizes)}"]
    lines += [f"axis {case.axis}"]
    lines += [f"strides {name} {text(strides)}" for name, strides in case.strides.items()]
    lines += [f"{name} {text(value)}" for name, value in case.options.items()]

    def memory(name: str, value: np.ndarray) -> np.ndarray:
        laid = laid_out(value, case.strides.get("dy" if name == "dz" else name), FILL)
        return to_bits(laid, case.dtype) if is_16 else laid

    given = {**{n: memory(n, v) for n, v in tensors.items()}, **parameters}
    if case.weights:
        given["weights"] = w
    lines += [f"{name} {words(value)}" for name, value in given.items()]
    for name, value in found.items():
        if name == "mask":
            # In the order of x's memory, without its gaps.
            order = sorted(range(len(case.sizes)), key=lambda i: -case.strides["x"][i] if case.strides else i)
            value = np.packbits(back(value).transpose(order).ravel(), bitorder="little")
        elif name in ("y", "dx", "dz"):
            if is_16 and not is_decided(value, case.dtype):
                return None
            value = memory(name, back(value))
        lines.append(f"expect {name} {words(value)}")
    return lines


NHWC = dict.fromkeys(("x", "y", "residual", "dy", "dx"), (24, 1, 8, 4))
ALL = ("gamma", "beta", "running_mean", "running_var", "residual")
CASES = [
    Case("training", options={"eps": 0.5, "momentum": 0.25, "biased": True}),
    Case("training in float64, without parameters", dtype="float64", arrays=()),
    Case("inference", call="inference"),
    Case("inference in float64", call="inference", dtype="float64", options={"eps": 0.25}),
    Case("relu, a residual and a mask", options={"activation": "relu", "mask": True}, arrays=ALL),
    Case("relu and a residual, without a mask", options={"activation": "relu"}, arrays=ALL, dtype="float64"),
    Case("leaky relu", options={"activation": "leaky_relu", "slope": 0.25}, arrays=ALL),
    Case("clip and a mask", dtype="float64", options={"activation": "clip", "low": -0.5, "high": 0.75, "mask": True}),
    Case("relu6", options={"activation": "clip"}, call="inference"),
    Case("hard swish", options={"activation": "hard_swish"}, arrays=ALL),
    Case("silu", options={"activation": "silu"}, arrays=ALL, dtype="float64"),
    Case("ghost batches", options={"groups": 2}),
    Case(
        "segments",
        dtype="float64",
        arrays=ALL,
        options={"activation": "relu", "mask": True, "groups": 3, "index": (2, 0, 0, 2), "per_group": PER_GROUP},
    ),
    Case("classes", options={"groups": 2, "index": (1, 0, 1, 1), "per_group": ("parameters",)}),
    Case("float16", dtype="float16", options={"activation": "relu", "mask": True}, arrays=ALL, sizes=(3, 2, 4)),
    Case("bfloat16", dtype="bfloat16", options={"activation": "leaky_relu"}, sizes=(3, 2, 4)),
    Case(
        "a slice of samples",
        sizes=(3, 2, 2, 2),
        arrays=ALL,
        options={"activation": "silu"},
        strides={
            "x": (16, 4, 2, 1),
            "y": (8, 4, 2, 1),
            "residual": (12, 4, 2, 1),
            "dy": (10, 4, 2, 1),
            "dx": (24, 4, 2, 1),
        },
    ),
    Case("NHWC by strides", sizes=(2, 4, 3, 2), options={"activation": "relu", "mask": True}, arrays=ALL, strides=NHWC),
    Case("groups of NHWC by strides", sizes=(2, 4, 3, 2), options={"groups": 2}, strides=NHWC, dtype="float64"),
    Case("weights, 0 without them", options={"masked": "zero"}, sizes=(2, 3, 4), weights=(1, 1, 0, 1, 1, 0, 0, 1)),
    Case("weights, x without them", options={"masked": "keep"}, sizes=(2, 3, 4), weights=(1, 1, 2, 0, 1, 1, 0, 0)),
    Case("weights", dtype="float64", sizes=(2, 3, 4), weights=(1, 0.5, 2, 0, 1, 1, 0.25, 3)),
]

REFUSED = {
    "a negative eps": ("eps", ["eps -1"]),
    "a momentum above 1": ("momentum", ["momentum 2"]),
    "a negative slope": ("slope", ["activation leaky_relu", "slope -1"]),
    "limits that are none": ("low", ["activation clip", "low 2", "high 1"]),
    "a mask of what is no bit": ("mask", ["activation silu", "mask 1"]),
    "groups that do not divide": ("groups", ["groups 2"]),
    "a group that is not there": ("index", ["groups 2", "index 0 2 0"]),
    "channels that overlap": ("strides", ["strides x 2 0 1", "strides y 2 0 1"]),
    "channels with a gap": ("strides", ["strides x 12 3 1", "strides y 12 3 1"]),
    "samples that are not outermost": ("samples", ["groups 3", "strides x 2 1 6", "strides y 2 1 6"]),
    "another order in memory": ("strides", ["strides x 4 2 1", "strides y 1 3 6"]),
}


def is_same(found: str, wanted: str) -> bool:
    """The same words, and numbers but for the last digits, which another NumPy may add up in another order."""
    if found == wanted or len(found.split()) != len(wanted.split()):
        return found == wanted
    pairs = [(a, b) for a, b in zip(found.split(), wanted.split()) if a != b]
    try:
        return all(abs(float(a) - float(b)) <= 1e-13 * max(1, abs(float(b))) for a, b in pairs)
    except ValueError:
        return False


def lines_of(case: Case) -> list[str]:
    """Those of the first seed that will do."""
    return next(lines for seed in range(2000) if (lines := attempt(case, seed)) is not None)


def main() -> None:
    lines = [line for case in CASES for line in lines_of(case)]
    x = "x " + " ".join(str(i * i % 11 - 4) for i in range(24))
    for name, (word, options) in REFUSED.items():
        size = 12 if not any(line.startswith("strides") for line in options) else 24
        given = " ".join(x.split()[: size + 1])
        lines += [f"case {name}", "dtype float32", "call training", "sizes 3 2 2", "axis 1", *options, given]
        lines += [f"refused {word}"]
    written = "\n".join(lines) + "\n"
    path = Path(__file__).parent / "cases.txt"
    if "--check" not in sys.argv:
        path.write_text(written)
    elif not is_same(path.read_text(), written):
        sys.exit(f"{path} is not what {Path(__file__).name} writes")


if __name__ == "__main__":
    main()
