# SPDX-License-Identifier: Apache-2.0
"""States of pickles: what __setstate__() of layers and saved statistics are given, with something wrong in it.

A pickle as such executes what it likes. A state that is damaged has to be refused, or to be harmless.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import batchnorm as bn
import numpy as np
from judge import expect, refuses
from mutations import NUMBERS, SIZES
from of_states import _snapshot as snapshot
from of_states import _strange as strange

NAME, SUFFIX, PACKAGES = "pickles", ".pickled", ()
DRAWN = True
_X = np.random.default_rng(5).normal(size=(4, 3, 2)).astype(np.float32)


def seeds(folder: Path) -> list[bytes]:
    return [f"0 {index}".encode() for index in range(20)]


def mutated(rng: random.Random, data: bytes) -> bytes:
    return f"{rng.choice([1, 1, 2])} {rng.randrange(2**32)}".encode()


def check(path: Path) -> bool:
    """True if a state is taken."""
    wrong, seed = path.read_bytes().split()
    rng = random.Random(seed)
    return (_layer if rng.random() < 0.4 else _saved)(rng, int(wrong), path)


def _value(rng: random.Random, value: Any) -> Any:
    others = [None, "x", b"", b"x" * 12, (), (3,), (1 << 18,), (-1,), (4, 1 << 18, 2), {}, [], 3, *NUMBERS, *SIZES[-8:]]
    if isinstance(value, np.ndarray) and value.size and rng.random() < 0.7:
        return strange(rng, value)
    if isinstance(value, bytes) and rng.random() < 0.5:
        return value[: rng.randrange(len(value) + 1)]
    return rng.choice([*others, np.dtype("f8"), np.dtype("i4"), np.zeros(1 << 12)])


def _spoil(rng: random.Random, state: dict[str, Any]) -> None:
    """Another version, attribute, or value of one; of a call's extras, too."""
    if rng.random() < 0.1:
        state[rng.choice(["version", "attributes"])] = _value(rng, state["version"])
        return
    within = [each for each in (state["attributes"], *_nested(state["attributes"])) if each]
    if not within:
        return
    attributes = rng.choice(within)
    name = rng.choice(sorted(attributes))
    if rng.random() < 0.2:
        del attributes[name]
    else:
        attributes[name] = _value(rng, attributes[name])


def _nested(attributes: Any) -> list[dict[str, Any]]:
    call = attributes.get("call") if isinstance(attributes, dict) else None
    extras = call.get("extras") if isinstance(call, dict) else None
    return [each for each in (call, extras) if isinstance(each, dict)]


def _layer(rng: random.Random, wrong: int, path: Path) -> bool:
    layer, other = bn.BatchNorm1d(3), bn.BatchNorm1d(3, activation=rng.choice([None, "relu"]))
    other(_X)
    state = other.__getstate__()
    for _ in range(wrong):
        if isinstance(state.get("attributes"), dict):
            _spoil(rng, state)
    before = snapshot(layer)
    refused, _ = refuses(lambda: layer.__setstate__(state), path, (ValueError, TypeError))
    if refused:
        expect(wrong > 0 and snapshot(layer) == before, "a layer has changed, and the state was refused")
    else:
        _harmless(lambda: layer(_X))
    return not refused


def _saved(rng: random.Random, wrong: int, path: Path) -> bool:
    statistics = {"running_mean": np.zeros(3, "f4"), "running_var": np.ones(3, "f4")}
    told: dict[str, Any] = rng.choice(
        [
            {},
            {"activation": "relu", "save_mask": True},
            {"activation": "silu", "residual": _X, "weights": np.ones((4, 2))},
            {"groups": bn.Ghost(2)},
            {"groups": bn.Segments([0, 0, 1, 1], 2), "activation": "relu"},
            {"source": bn.Renorm(), **statistics},
        ]
    )
    shape = (2, 3) if isinstance(told.get("groups"), bn.Segments) else (3,)
    saved = bn.forward_training(_X, np.ones(shape, "f4"), np.zeros(shape, "f4"), **told)[1]
    restored, (state,) = saved.__reduce__()  # type: ignore[misc]
    state = {**state, "attributes": dict(state["attributes"])}
    call = state["attributes"]["call"]
    if call is not None:
        state["attributes"]["call"] = {**call, "extras": dict(call["extras"])}
    for _ in range(wrong):
        if isinstance(state.get("attributes"), dict):
            _spoil(rng, state)
    refused, again = refuses(lambda: restored(state), path, (ValueError, TypeError))
    if refused:
        expect(wrong > 0, f"a state that is right is refused: {again}")
        return False
    results = _harmless(lambda: bn.backward(_X, _X, again))
    if not wrong:
        for found, exact in zip(results, bn.backward(_X, _X, saved)):
            expect(found.tobytes() == exact.tobytes(), f"backward() gives {found}, expected {exact}")
    # The state may claim as many channels as this: backward() must read none of them from elsewhere.
    wide = np.ones((4, 1 << 18, 2), np.float32)
    _harmless(lambda: bn.backward(wide, wide, again))
    return True


def _harmless(call: Any) -> Any:
    """The result of a call that may fail in any way of Python's, but for memory; a crash ends the process."""
    try:
        with np.errstate(all="ignore"):
            return call()
    except MemoryError:
        raise
    except Exception:
        return None
