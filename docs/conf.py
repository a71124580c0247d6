# SPDX-License-Identifier: Apache-2.0
"""The site that `make docs` builds. The header and the docstrings explain functions; this file never does."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent / "python")]

import jax_names  # noqa: E402
import torch_names  # noqa: E402
from batchnorm import __version__  # noqa: E402

jax_names.load()
torch_names.load()

project, release = "libbatchnorm", __version__
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "c_header", "docstrings", "mathml", "names"]
nitpicky = True
# Types of C, which the header does not declare.
nitpick_ignore = [("c:identifier", name) for name in ("size_t", "int32_t", "int64_t", "uint8_t")]
default_role = "code"
highlight_language = "none"
smartquotes = False
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"

autodoc_typehints = "none"  # the docstrings tell types, and more
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
c_maximum_signature_line_length = 100
python_maximum_signature_line_length = 100
myst_heading_anchors = 3

# The page that trains in the browser, if `make live` has built it.
live = HERE.parent / ".build-live" / "batchnorm-live.html"
if live.is_file():
    tags.add("live")  # type: ignore[name-defined] # noqa: F821
    html_extra_path = [str(live)]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_title = f"libbatchnorm {release}"
html_show_sourcelink = False
html_show_copyright = False
