# SPDX-License-Identifier: Apache-2.0
"""From measurements to tables and pictures."""
