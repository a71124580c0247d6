// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Registers of 256 bits: Haswell, Zen and newer. Sixteen lanes are two registers of float32.
@_cdecl("kernels_avx2")
public func kernelsAVX2(_ table: UnsafeMutablePointer<kernel_table>) { fillTable(table) }

/// A strip at a time: its sums are eight of sixteen registers, chains enough for the latency of an addition.
typealias Wide<T: Accumulator> = T
typealias WidePair<T: Accumulator> = T

/// Elements of float32 numbers, layouts and clips have loops of their own.
let hasLoopForEach = true

/// Sixteen registers do not hold the coefficients of several vectors.
let hasPanels = false

/// Sixteen lanes of float32 are several registers.
let hasVectorRegisters = false
