# SPDX-License-Identifier: Apache-2.0
"""The table of calls.csv."""

from __future__ import annotations

from harness.rows import CallRow

from .markdown import digits, ratio, table

KEY = """\
Microseconds of a call with one thread, float32. Functions write into outputs that exist, layers make theirs. "tensors"
gives the same function PyTorch's tensors; "torch" is PyTorch's own: native_batch_norm, its backward, torch.nn's layer.
"torch / ours" is against arrays, "over C" the microseconds that a call from Python takes more than one from C.
"""


def calls(rows: list[CallRow]) -> str:
    found = {(row.workload, row.operation, row.way): row for row in rows}
    body = []
    for workload, operation in dict.fromkeys((row.workload, row.operation) for row in rows):
        of = {way: found.get((workload, operation, way)) for way in ("", "from C", "tensors", "torch")}
        ours, c, theirs = of[""], of["from C"], of["torch"]
        if ours is None:
            continue
        cells = [digits(row.median_us) if row else "" for row in of.values()]
        cells.append(digits(ours.median_us - c.median_us) if c else "")
        cells.append(ratio(theirs.median_us / ours.median_us if theirs else None))
        body.append([workload, operation, *cells])
    head = ["tensor", "call", "arrays", "from C", "tensors", "torch", "over C", "torch / ours"]
    return f"{KEY}\n{table(head, body, words=2)}"
