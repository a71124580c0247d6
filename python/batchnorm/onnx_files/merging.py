# SPDX-License-Identifier: Apache-2.0
"""A batch norm takes up the steps after it: another batch norm, the Scale of Caffe, or the like."""

from __future__ import annotations

import numpy as np

from .._core.rounding import rounded
from .norms import is_norm
from .report import Fold, Report, label
from .scope import Scope
from .steps import Step, composed, trimmed


def merge(scope: Scope, steps: list[Step], report: Report) -> bool:
    """Makes one batch norm of steps that begin with one, and returns True if it did.

    The statistics stay those of the first, which are in the units of x: x is centred with the very mean that was taken
    of it, before anything is scaled. All that follows goes into gamma and beta.
    """
    first, rest = steps[0].node, composed(steps[1:])
    gamma, beta = (scope.constants.get(name) for name in first.input[1:3])
    if gamma is None or beta is None or all(step.idle for step in steps[1:]):
        return False
    with np.errstate(all="ignore"):
        wide = (gamma * rest.scale, beta.astype(np.float64) * rest.scale + rest.shift)
    try:
        new = [rounded(np.asarray(each, np.float64), gamma.dtype, label(first)) for each in wide]
    except ValueError:
        return False
    steps = trimmed(steps)
    output = steps[-1].node.output[0]
    for step in reversed(steps[1:]):
        scope.remove(step.node)
    scope.rename_output(first, output)
    for index, values in enumerate(new):
        scope.put(first, 1 + index, values, label(first))
    how = f"into the batch norm {label(first)!r} before it"
    for step in steps[1:]:
        folds = report.folded if is_norm(step.node) else report.merged
        folds.append(Fold(label(step.node), how, (output,), scope.outer is None))
    return True
