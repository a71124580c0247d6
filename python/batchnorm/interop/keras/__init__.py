# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization as Keras 3 has it, for NumPy arrays: its arguments, its weights, its meanings.

It differs from Keras on purpose:

- Gradients are a method, backward(), after each call.
- A batch without values, or one that the mask hides as a whole, leaves the moving averages as they are. In Keras they
  become NaN after an empty batch, and move towards 0 under a mask that hides everything.
- Sums under a mask are divided by the number of values, not by that plus 1e-7.
- A mask of a single channel is fine. A mask that differs between channels is an error; Keras takes one if the channel
  axis is not the last.
- Inputs are converted to the compute dtype, integers too.

The layer is no BatchNorm. To fold, recalibrate or convert it, make a BatchNorm of its weights::

    names = "gamma", "beta", "moving_mean", "moving_variance"
    bn.from_state(dict(zip(names, layer.get_weights())), "keras", momentum=layer.momentum, epsilon=layer.epsilon)
"""

from .layer import BatchNormalization

__all__ = ["BatchNormalization"]
