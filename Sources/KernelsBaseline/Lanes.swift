// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Registers of 128 bits: SSE2, which every x86-64 has, and NEON, which every arm64 has. Sixteen lanes are four
/// registers of float32.
@_cdecl("kernels_baseline")
public func kernelsBaseline(_ table: UnsafeMutablePointer<kernel_table>) { fillTable(table) }

/// A strip at a time: its sums are sixteen registers, all that SSE2 has.
typealias Wide<T: Accumulator> = T
typealias WidePair<T: Accumulator> = T

/// Where these registers are the only ones, elements, layouts and clips have loops of their own. On x86-64 they are what
/// processors older than Haswell have: there one loop serves all elements of float32 numbers, all layouts and clips, which is
/// 80 KB less and takes 1.15 times as long. A browser has to fetch what it runs.
#if arch(x86_64) || arch(wasm32)
    let hasLoopForEach = false
#else
    let hasLoopForEach = true
#endif

/// Sixteen registers do not hold the coefficients of several vectors.
let hasPanels = false

/// Sixteen lanes of float32 are several registers.
let hasVectorRegisters = false
