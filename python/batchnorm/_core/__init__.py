# SPDX-License-Identifier: Apache-2.0
"""The way to the library, which is loaded and called here; arrays become addresses. Private."""
