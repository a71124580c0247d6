// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Registers of 512 bits: Skylake-X, Zen 4 and newer. Sixteen lanes are one register of float32.
@_cdecl("kernels_avx512")
public func kernelsAVX512(_ table: UnsafeMutablePointer<kernel_table>) { fillTable(table) }

/// Four strips at a time: their sums are sixteen of 32 registers.
typealias Wide<T: Accumulator> = Pair<Pair<T>>
typealias WidePair<T: Accumulator> = Pair<T>

/// Elements of float32 numbers, layouts and clips have loops of their own.
let hasLoopForEach = true

/// 32 registers hold the coefficients of four vectors.
let hasPanels = true

/// Sixteen lanes of float32 are one register.
let hasVectorRegisters = true
