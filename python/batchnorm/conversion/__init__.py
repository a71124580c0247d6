# SPDX-License-Identifier: Apache-2.0
"""All batch norms of a file in the names and conventions of another framework."""

from .convert import Conversion, Converted, convert_arrays, convert_file

__all__ = ["Conversion", "Converted", "convert_arrays", "convert_file"]
