# SPDX-License-Identifier: Apache-2.0
"""The version of the package: the one of Include/batchnorm.h."""

__version__ = "2.0.0"
