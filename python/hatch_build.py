# SPDX-License-Identifier: Apache-2.0
"""Build hook: puts libbatchnorm.so, built from the Swift sources beside this folder, into the wheel.

Environment: BATCHNORM_LIBRARY names a libbatchnorm.so to take instead of building one, BATCHNORM_PLATFORM the platform
that it is for, as in the names of wheels, and STRIP the program that strips it (default: strip).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "libbatchnorm.so"


class LibraryBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library and the tag of its platform; the Python code itself is the same for every version."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it puts the wheel together."""
        library = given_library() or built_library(Path(self.root))
        platform = os.environ.get("BATCHNORM_PLATFORM") or sysconfig.get_platform()
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        if version == "editable":
            return  # the package finds the library where Swift leaves it
        self.folder = tempfile.mkdtemp()
        bundled = Path(shutil.copy(library, Path(self.folder, NAME)))
        strip = shutil.which(os.environ.get("STRIP") or "strip")
        if strip:
            subprocess.run([strip, "--strip-unneeded", bundled], check=True)
        build_data["force_include"][str(bundled)] = f"batchnorm/{NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the wheel is written."""
        if version != "editable":
            shutil.rmtree(self.folder)


def given_library() -> Path | None:
    """The library that BATCHNORM_LIBRARY names."""
    given = os.environ.get("BATCHNORM_LIBRARY")
    if not given:
        return None
    if not Path(given).is_file():
        raise SystemExit(f"BATCHNORM_LIBRARY is {given}, where there is no file.")
    return Path(given)


def built_library(root: Path) -> Path:
    """The library that Swift builds of the sources beside this folder, or in it if it came as a source distribution."""
    repository = next((folder for folder in (root, root.parent) if (folder / "Package.swift").is_file()), None)
    if repository is None:
        raise SystemExit(
            f"{root.parent} has no Package.swift: build in a checkout, or name a library in BATCHNORM_LIBRARY."
        )
    swift = shutil.which("swift")
    if not swift:
        raise SystemExit(f"{NAME} needs a Swift toolchain: install one, or name a library in BATCHNORM_LIBRARY.")
    try:
        subprocess.run([swift, "build", "-c", "release"], cwd=repository, check=True)
    except subprocess.CalledProcessError:
        raise SystemExit("swift build -c release failed; its own messages stand above.") from None
    return repository / ".build" / "release" / NAME
