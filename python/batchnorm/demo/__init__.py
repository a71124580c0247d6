# SPDX-License-Identifier: Apache-2.0
"""The demo: one network, without and with batch norm, at several learning rates. `batchnorm demo` runs it."""
