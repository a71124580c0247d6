# SPDX-License-Identifier: Apache-2.0
"""The systems that are measured: this library, the floors, and the peers that are installed."""

from __future__ import annotations

import importlib

from harness.system import System

OURS = "batchnorm"
OURS_FROM_C = "batchnorm C"
FLOORS = COPY, TWO_READS, THREE_TENSORS = "copy", "two reads, one write", "two tensors in, one out"

# Name on the command line, module, class. The rows of a round are in this order.
KNOWN = (
    ("ours", "ours", "Ours"),
    ("ours", "ours", "OursFromC"),
    ("floors", "floors", "Copy"),
    ("floors", "floors", "TwoReads"),
    ("floors", "floors", "ThreeTensors"),
    ("torch", "pytorch", "PyTorch"),
    ("torch kernels", "torch_kernels", "TorchKernels"),
    ("onednn", "onednn", "OneDNN"),
    ("onnxruntime", "onnx_runtime", "OnnxRuntime"),
    ("jax", "jax_jit", "Jax"),
    ("numpy", "plain_numpy", "NumPy"),
)
NAMES = tuple(dict.fromkeys(name for name, _, _ in KNOWN))


def available(names: tuple[str, ...], threads: int) -> tuple[list[System], dict[str, str]]:
    """The systems of these names that work here, and for the others the reason why they do not."""
    systems: list[System] = []
    absent: dict[str, str] = {}
    for name, module, kind in KNOWN:
        if name not in names:
            continue
        try:
            systems.append(getattr(importlib.import_module(f"peers.{module}"), kind)(threads))
        except (ImportError, OSError, LookupError) as error:  # not installed, not loadable, without the files it needs
            absent[name] = str(error).splitlines()[0]
    return systems, absent


def floor_of(operation: str) -> str:
    """The floor of an operation, which no implementation gets below: its tensors have to be moved once."""
    return THREE_TENSORS if operation == "backward" else COPY
