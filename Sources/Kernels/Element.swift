// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What a tensor can hold. Sums are computed in `Double`, outputs in the element type itself.
protocol Element: BinaryFloatingPoint & SIMDScalar {
    static func widen(_ v: SIMD16<Self>) -> SIMD16<Double>
}

extension Float: Element {
    @inline(__always)
    static func widen(_ v: SIMD16<Float>) -> SIMD16<Double> { vector_widen(v) }
}

extension Double: Element {
    @inline(__always)
    static func widen(_ v: SIMD16<Double>) -> SIMD16<Double> { v }
}
