# SPDX-License-Identifier: Apache-2.0
"""What every measurement here shares: workloads, buffers, the clock, the machine."""
