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
    /// The first 1 to 15 lanes from memory, the others from `fill`.
    static func load(_ source: UnsafePointer<Self>, lanes: Int, fill: SIMD16<Self>) -> SIMD16<Self>
    /// The first 1 to 15 lanes to memory.
    static func store(_ vector: SIMD16<Self>, to target: UnsafeMutablePointer<Self>, lanes: Int)
    /// All lanes to memory, past the caches; the target is aligned to a cache line.
    static func stream(_ vector: SIMD16<Self>, to target: UnsafeMutablePointer<Self>)
}

extension Float: Element {
    @inline(__always)
    static func widen(_ v: SIMD16<Float>) -> SIMD16<Double> { vector_widen(v) }

    @inline(__always)
    static func load(_ source: UnsafePointer<Float>, lanes: Int, fill: SIMD16<Float>) -> SIMD16<Float> {
        vector_load_f32(source, lanes, fill)
    }

    @inline(__always)
    static func store(_ vector: SIMD16<Float>, to target: UnsafeMutablePointer<Float>, lanes: Int) {
        vector_store_f32(vector, target, lanes)
    }

    @inline(__always)
    static func stream(_ vector: SIMD16<Float>, to target: UnsafeMutablePointer<Float>) {
        vector_stream_f32(vector, target)
    }
}

extension Double: Element {
    @inline(__always)
    static func widen(_ v: SIMD16<Double>) -> SIMD16<Double> { v }

    @inline(__always)
    static func load(_ source: UnsafePointer<Double>, lanes: Int, fill: SIMD16<Double>) -> SIMD16<Double> {
        vector_load_f64(source, lanes, fill)
    }

    @inline(__always)
    static func store(_ vector: SIMD16<Double>, to target: UnsafeMutablePointer<Double>, lanes: Int) {
        vector_store_f64(vector, target, lanes)
    }

    @inline(__always)
    static func stream(_ vector: SIMD16<Double>, to target: UnsafeMutablePointer<Double>) {
        vector_stream_f64(vector, target)
    }
}
