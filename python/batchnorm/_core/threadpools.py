# SPDX-License-Identifier: Apache-2.0
"""threadpoolctl, which limits the threads of libraries that it knows; scikit-learn and others call it."""

from __future__ import annotations

import ctypes
from os.path import basename, realpath


def register(library: ctypes.CDLL) -> None:
    """Has threadpoolctl know the library, if it is installed: `threadpool_limits(1)` holds for it then."""
    try:
        from threadpoolctl import LibController
        from threadpoolctl import register as add
    except ImportError:  # it is not there, or older than 3.2
        return

    class Controller(LibController):
        """The library for threadpoolctl, which finds its file among those that are loaded."""

        user_api = internal_api = "batchnorm"
        filename_prefixes = "libbatchnorm", basename(realpath(library._name)).lower()
        check_symbols = ("bn_set_num_threads",)

        def get_num_threads(self) -> int:
            return int(self.dynlib.bn_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.bn_set_num_threads(min(max(num_threads, 1), 1024))

        def get_version(self) -> str:
            number = int(self.dynlib.bn_version())
            return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    add(Controller)
