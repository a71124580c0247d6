# SPDX-License-Identifier: Apache-2.0
"""The parts that every measurement here shares: workloads, buffers, the clock, the machine."""
