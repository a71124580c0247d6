# SPDX-License-Identifier: Apache-2.0
"""Build hooks: the operators are compiled against the PyTorch of the build's environment, and go into the wheel.

Environment: CXX names the compiler (default: g++), BATCHNORM_PLATFORM the platform, as in the names of wheels.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

OLDEST = (2, 10)  # as batchnorm.torch has it
NAME = "operators.so"
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-s"]


class OneVersion(MetadataHookInterface):
    """The operators work with the batchnorm of their own version alone."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling when it wants to know of the project."""
        version = next(
            line.split('"')[1]
            for line in Path(self.root, "../batchnorm/_version.py").read_text().splitlines()
            if line.startswith("__version__")
        )
        metadata["dependencies"] = [f"batchnorm=={version}", f"torch>={'.'.join(map(str, OLDEST))}"]


class Operators(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the operators, and adds them with the tag of their platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it puts the wheel together."""
        platform = os.environ.get("BATCHNORM_PLATFORM") or sysconfig.get_platform()
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        self.folder = tempfile.TemporaryDirectory()
        compiled = Path(self.folder.name, NAME)
        compile_into(compiled, self.metadata.version, Path(self.root))
        build_data["force_include"][str(compiled)] = f"batchnorm_torch/{NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the wheel is written."""
        self.folder.cleanup()


def compile_into(output: Path, version: str, root: Path) -> None:
    """Compiles the sources, for this version of batchnorm and every PyTorch from the oldest on."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise SystemExit("The operators need PyTorch's headers: install torch where they are built.")
    torch = Path(found.origin).parent
    target = OLDEST[0] << 56 | OLDEST[1] << 48
    defined = [f"-DTORCH_TARGET_VERSION={target:#x}", f'-DBATCHNORM_TORCH_VERSION="{version}"']
    sources = ["-isystem", torch / "include", "-I", root / "../../Include", *sorted(root.glob("*.cpp"))]
    linked = ["-L", torch / "lib", "-ltorch_cpu", "-Wl,--as-needed", "-o", output]
    command = [os.environ.get("CXX") or "g++", *FLAGS, *defined, *sources, *linked]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise SystemExit(f"The operators need a C++ compiler, but there is no {command[0]}.") from None
    except subprocess.CalledProcessError:
        raise SystemExit("The operators could not be compiled; the compiler's own messages stand above.") from None
