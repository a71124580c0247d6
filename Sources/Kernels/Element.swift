// SPDX-License-Identifier: Apache-2.0
import CKernels

// Ordinary Swift's SIMDScalar implies Codable and warns until a refinement repeats it; Embedded Swift has no Codable.
#if hasFeature(Embedded)
    typealias VectorElement = FloatingPoint & SIMDScalar
#else
    typealias VectorElement = FloatingPoint & SIMDScalar & Codable
#endif

/// What a tensor can hold. Sums are computed in `Double`, outputs in the element type itself.
protocol Element: VectorElement {
    init(_ value: Double)
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
