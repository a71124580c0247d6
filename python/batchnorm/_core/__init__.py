# SPDX-License-Identifier: Apache-2.0
"""The way to the library: how it is loaded and called, and how arrays become addresses. Private."""
