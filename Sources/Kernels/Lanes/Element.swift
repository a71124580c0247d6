// SPDX-License-Identifier: Apache-2.0
import CKernels

// Ordinary Swift's SIMDScalar implies Codable and warns until a refinement repeats it; Embedded Swift has no Codable.
#if hasFeature(Embedded)
    typealias VectorElement = FloatingPoint & SIMDScalar
#else
    typealias VectorElement = FloatingPoint & SIMDScalar & Codable
#endif

/// An element of a tensor: it has one form in memory, and in a register it is the number that outputs are computed with.
protocol Element {
    associatedtype Number: Arithmetic
    /// So many of `Self` are an element of a tile's kind.
    static func units(_ kind: kernel_element) -> Int
    /// The first lanes from memory, the others from `fill`.
    static func load(_ source: UnsafePointer<Self>, _ kind: kernel_element, lanes: Int, fill: SIMD16<Number>)
        -> SIMD16<Number>
    /// The first lanes to memory; whole vectors past the caches, if wanted, the target being aligned to a vector.
    static func store(
        _ vector: SIMD16<Number>, to target: UnsafeMutablePointer<Self>, _ kind: kernel_element, lanes: Int,
        streams: Bool)
}

/// An element of one kind.
protocol FixedElement: Element {
    static func load(_ source: UnsafePointer<Self>) -> SIMD16<Number>
    static func store(_ vector: SIMD16<Number>, to target: UnsafeMutablePointer<Self>)
    /// The first 1 to 15 lanes from memory, the others from `fill`.
    static func load(_ source: UnsafePointer<Self>, lanes: Int, fill: SIMD16<Number>) -> SIMD16<Number>
    /// The first 1 to 15 lanes to memory.
    static func store(_ vector: SIMD16<Number>, to target: UnsafeMutablePointer<Self>, lanes: Int)
    /// All lanes to memory, past the caches; the target is aligned to a vector.
    static func stream(_ vector: SIMD16<Number>, to target: UnsafeMutablePointer<Self>)
}

extension FixedElement {
    @inline(__always)
    static func units(_ kind: kernel_element) -> Int { 1 }

    @inline(__always)
    static func load(
        _ source: UnsafePointer<Self>, _ kind: kernel_element, lanes: Int, fill: SIMD16<Number>
    ) -> SIMD16<Number> {
        loadLanes(source, lanes: lanes, fill: fill)
    }

    @inline(__always)
    static func store(
        _ vector: SIMD16<Number>, to target: UnsafeMutablePointer<Self>, _ kind: kernel_element, lanes: Int,
        streams: Bool
    ) {
        if streams && lanes == laneCount {
            stream(vector, to: target)
        } else {
            storeLanes(vector, to: target, lanes: lanes)
        }
    }
}

/// A number that outputs are computed with. Sums are computed in `Double`.
protocol Arithmetic: VectorElement, FixedElement where Number == Self {
    init(_ value: Double)
    static func widen(_ v: SIMD16<Self>) -> SIMD16<Double>
    static func narrow(_ v: SIMD16<Double>) -> SIMD16<Self>
    /// a > b ? c : d, lane by lane; d where there is a NaN.
    static func above(_ a: SIMD16<Self>, _ b: SIMD16<Self>, _ c: SIMD16<Self>, _ d: SIMD16<Self>) -> SIMD16<Self>
    /// bit ? a : b, the lowest bit for the first lane.
    static func pick(_ bits: UInt32, _ a: SIMD16<Self>, _ b: SIMD16<Self>) -> SIMD16<Self>
    /// The lanes above one number and up to another, as bits.
    static func between(_ v: SIMD16<Self>, _ low: Self, _ top: Self) -> UInt32
    /// e^v of what is not above 0.
    static func exponential(_ v: SIMD16<Self>) -> SIMD16<Self>
}

extension Arithmetic {
    @inline(__always)
    static func load(_ source: UnsafePointer<Self>) -> SIMD16<Self> {
        UnsafeRawPointer(source).loadUnaligned(as: SIMD16<Self>.self)
    }

    @inline(__always)
    static func store(_ vector: SIMD16<Self>, to target: UnsafeMutablePointer<Self>) {
        UnsafeMutableRawPointer(target).storeBytes(of: vector, as: SIMD16<Self>.self)
    }
}

extension Float: Arithmetic {
    @inline(__always)
    static func widen(_ v: SIMD16<Float>) -> SIMD16<Double> { vector_widen(v) }

    @inline(__always)
    static func narrow(_ v: SIMD16<Double>) -> SIMD16<Float> { vector_narrow(v) }

    @inline(__always)
    static func above(_ a: SIMD16<Float>, _ b: SIMD16<Float>, _ c: SIMD16<Float>, _ d: SIMD16<Float>) -> SIMD16<Float> {
        vector_above_f32(a, b, c, d)
    }

    @inline(__always)
    static func pick(_ bits: UInt32, _ a: SIMD16<Float>, _ b: SIMD16<Float>) -> SIMD16<Float> {
        vector_pick_f32(bits, a, b)
    }

    @inline(__always)
    static func between(_ v: SIMD16<Float>, _ low: Float, _ top: Float) -> UInt32 { vector_between_f32(v, low, top) }

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

extension Double: Arithmetic {
    @inline(__always)
    static func widen(_ v: SIMD16<Double>) -> SIMD16<Double> { v }

    @inline(__always)
    static func narrow(_ v: SIMD16<Double>) -> SIMD16<Double> { v }

    @inline(__always)
    static func above(
        _ a: SIMD16<Double>, _ b: SIMD16<Double>, _ c: SIMD16<Double>, _ d: SIMD16<Double>
    ) -> SIMD16<Double> {
        vector_above_f64(a, b, c, d)
    }

    @inline(__always)
    static func pick(_ bits: UInt32, _ a: SIMD16<Double>, _ b: SIMD16<Double>) -> SIMD16<Double> {
        vector_pick_f64(bits, a, b)
    }

    @inline(__always)
    static func between(_ v: SIMD16<Double>, _ low: Double, _ top: Double) -> UInt32 {
        vector_between_f64(v, low, top)
    }

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
