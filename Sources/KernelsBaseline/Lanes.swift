// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Registers of 128 bits: SSE2, which every x86-64 has, and NEON, which every arm64 has. Sixteen lanes are four
/// registers of float32.
@_cdecl("kernels_baseline")
public func kernelsBaseline(_ table: UnsafeMutablePointer<kernel_table>) { fill(table) }

/// A strip at a time: its sums are sixteen registers, all that SSE2 has.
typealias Wide<T: Terms> = T
typealias WidePair<T: Terms> = T

/// Loops of their own for clips would be as large as all the others together, and sixteen lanes are bound by arithmetic here.
let hasClips = false
