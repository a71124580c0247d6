# SPDX-License-Identifier: Apache-2.0
"""Settings of calls and layers beyond plain arguments: activations, running policies, sources, groups."""

from .activations import Activation, Clip, LeakyReLU
from .groups import Conditional, Ghost, Groups, Segments, Split
from .running import Running
from .sources import Blend, Renorm, Source, Updated, renorm_limits

__all__ = [
    "Activation",
    "Blend",
    "Clip",
    "Conditional",
    "Ghost",
    "Groups",
    "LeakyReLU",
    "Renorm",
    "Running",
    "Segments",
    "Source",
    "Split",
    "Updated",
    "renorm_limits",
]
