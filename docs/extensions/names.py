# SPDX-License-Identifier: Apache-2.0
"""Code that is a name of the reference becomes a link to it, be it in a page, a docstring, or a comment of the header.

A name of ours (bn_, BN_, bn.) that the reference does not have is a warning: it was misspelt, or is gone.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

OURS = re.compile(r"(bn_\w+(?:\.\w+)?|BN_[A-Z]\w+|bn\.\w[\w.]*)(?:\(.*\))?")
CALL = re.compile(r"([A-Za-z_][\w.]*)\(\)")
Place = tuple[str, str]

logger = logging.getLogger(__name__)


def places(env: BuildEnvironment) -> dict[str, Place]:
    """Document and anchor of each name, as one writes it."""
    found: dict[str, Place] = {}
    for name, _, kind, document, anchor, _ in env.domains["c"].get_objects():
        if kind != "functionParam":
            found[name.rpartition(".")[2] if kind == "enumerator" else name] = document, anchor
    for name, entry in env.domains["py"].objects.items():
        short = name.replace("batchnorm.interop.onnx", "batchnorm.onnx", 1)
        for written in (name, short.removeprefix("batchnorm."), short.replace("batchnorm", "bn", 1)):
            found[written] = entry.docname, entry.node_id
    return found


def link(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Makes links at the end, when all names are known."""
    known = places(app.env)
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference):
            continue
        written, described = literal.astext(), described_by(literal)
        ours, call = OURS.fullmatch(written), CALL.fullmatch(written)
        if not ours and not call and (not document.startswith("reference/") or is_argument(written, described)):
            continue  # a word of its own: only the reference means itself by it
        name = ours[1] if ours else call[1] if call else written
        place = (call and nearest(name, described, document, known)) or known.get(name)
        if place:
            target = make_refnode(app.builder, document, *place, literal.deepcopy())
            literal.replace_self(target)
        elif ours:
            logger.warning("the reference has no %s", written, location=literal, type="names")


def nearest(
    name: str, described: list[addnodes.desc_signature], document: str, known: dict[str, Place]
) -> Place | None:
    """The place of `f()` in a text: a method of the class that it is about, else the only one of the document."""
    for signature in described:
        method = f"{signature['module']}.{signature['fullname'].partition('.')[0]}.{name}"
        if method in known:
            return known[method]
    here = {place for each, place in known.items() if place[0] == document and each.endswith(f".{name}")}
    return here.pop() if len(here) == 1 else None


def described_by(node: nodes.Node) -> list[addnodes.desc_signature]:
    """The signatures of Python that a node is said of."""
    found = []
    while node.parent is not None:
        node = node.parent
        if isinstance(node, addnodes.desc) and node["domain"] == "py":
            found += list(node.findall(addnodes.desc_signature))[:1]
    return found


def is_argument(name: str, signatures: list[addnodes.desc_signature]) -> bool:
    return any(name == each[0].astext() for one in signatures for each in one.findall(addnodes.desc_parameter))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
