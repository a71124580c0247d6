# SPDX-License-Identifier: Apache-2.0
"""Random networks folded: the same numbers, and no batch norm that has a layer of its own beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Array
from onnx_making import Maker, node, norm, onnx
from onnx_runs import drawn, near_enough, run

from batchnorm.onnx_files import fold_model, verify


class Network:
    """Nodes one after the other, and what may be folded of them by the rules of this file."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.maker = rng, Maker(rng)
        self.nodes: list[Any] = []
        self.arrays: dict[str, Array] = {}
        self.ends: list[tuple[str, int]] = [("x", 4)]  # tensors that may go on, and their channels
        self.foldable: set[str] = set()

    def new(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def add(self, kind: str, inputs: list[str], channels: int, **told: Any) -> str:
        name = self.new(kind.lower())
        self.nodes.append(node(kind, inputs, [name], name=f"n_{name}", **told))
        self.ends.append((name, channels))
        return name

    def pick(self) -> tuple[str, int]:
        return self.ends[-1] if self.rng.random() < 0.7 else self.ends[int(self.rng.integers(len(self.ends)))]

    def grow(self) -> None:
        kind = str(self.rng.choice(["conv", "conv", "norm", "norm", "relu", "add", "concat", "scale", "up"]))
        x, channels = self.pick()
        if kind == "conv":
            out, groups = int(self.rng.choice([2, 4, 6])), int(self.rng.choice([1, 2])) if channels % 2 == 0 else 1
            kernel = int(self.rng.choice([1, 3]))
            weight = self.new("w")
            self.arrays[weight] = self.maker.w(out, channels // groups, kernel, kernel) / np.float32(channels)
            self.add("Conv", [x, weight], out, pads=[kernel // 2] * 4, group=groups)
        elif kind == "up":
            weight = self.new("w")
            self.arrays[weight] = self.maker.w(channels, 4, 1, 1) / np.float32(channels)
            self.add("ConvTranspose", [x, weight], 4)
        elif kind == "norm":
            name = self.new("bn")
            self.arrays |= self.maker.params(channels, name)
            self.nodes.append(norm(x, name, name))
            self.ends.append((name, channels))
        elif kind == "relu":
            self.add("Relu", [x], channels)
        elif kind == "scale":
            constant = self.new("s")
            self.arrays[constant] = self.maker.w(1, channels, 1, 1)
            self.add(str(self.rng.choice(["Mul", "Add"])), [x, constant], channels)
        else:
            others = [each for each in self.ends if kind == "concat" or each[1] == channels]
            other, more = others[int(self.rng.integers(len(others)))]
            if kind == "add":
                self.add("Add", [x, other], channels)
            elif channels + more < 20:
                self.add("Concat", [x, other], channels + more, axis=1)

    def model(self) -> Any:
        used = {name for each in self.nodes for name in each.input}
        outputs = [name for each in self.nodes for name in each.output if name not in used]
        return self.maker.model(self.nodes, self.arrays, [2, 4, 5, 5], outputs=outputs)


def users(model: Any, name: str) -> list[Any]:
    outputs = [each for each in model.graph.output if each.name == name]
    return [each for each in model.graph.node for given in each.input if given == name] + outputs


@pytest.mark.parametrize("case", range(60))
def test_chain(rng: np.random.Generator, case: int) -> None:
    network = Network(rng)
    for _ in range(int(rng.integers(3, 14))):
        network.grow()
    model = network.model()
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    onnx.checker.check_model(copy, full_check=True)
    given = drawn(rng, model)
    near_enough(run(model, given), run(copy, given), units=2000)
    found = verify(model, copy, report.tensors, inputs=1, seed=case)
    assert set(report.tensors) <= set(found.errors)
    assert found.worst <= 2e-4
    before = [each.name for each in model.graph.node if each.op_type == "BatchNormalization"]
    assert sorted([fold.name for fold in report.folded if fold.name in before] + [name for name, _ in report.left]) == (
        sorted(before)
    )
    makers = {name: each for each in copy.graph.node for name in each.output}
    for each in copy.graph.node:
        if each.op_type != "BatchNormalization":
            continue
        maker = makers.get(each.input[0])
        alone = len(users(copy, each.input[0])) == 1
        assert not (alone and maker is not None and maker.op_type in ("Conv", "ConvTranspose", "BatchNormalization"))
        takers = users(copy, each.output[0])
        unpadded = [t for t in takers if getattr(t, "op_type", "") in ("Conv", "ConvTranspose") and not padded(t)]
        assert len(unpadded) < len(takers)


def padded(each: Any) -> bool:
    return any(sum(a.ints) for a in each.attribute if a.name == "pads")
