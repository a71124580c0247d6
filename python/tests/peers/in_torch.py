# SPDX-License-Identifier: Apache-2.0
"""Arrays of NumPy as tensors of PyTorch, of the same memory, and back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from comparing import Array, peer

torch = peer("torch")
torch.set_num_threads(1)  # the tensors are small


def tensor(array: Array, gradient: bool = False) -> Any:
    """A tensor with the array's memory, and with its strides."""
    if array.dtype == ml_dtypes.bfloat16:
        made = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        made = torch.from_numpy(array)
    return made.requires_grad_() if gradient else made


def exact(array: Any, gradient: bool = False) -> Any:
    """A tensor of float64 with the same numbers, which formulas compute with nearly without error."""
    return tensor(np.array(array, np.float64), gradient)


def array(made: Any) -> Array:
    """The numbers of a tensor."""
    made = made.detach()
    if made.dtype == torch.bfloat16:
        return np.asarray(made.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(made.numpy())
