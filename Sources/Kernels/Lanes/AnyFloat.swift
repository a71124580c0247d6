// SPDX-License-Identifier: Apache-2.0
import CKernels

/// One byte of an element that is float32, float16 or bfloat16, as the tile says: for loops that are too long to be there
/// once for each. They differ in how vectors are loaded and stored, which is a jump that is always foreseen.
struct AnyFloat: Element {
    typealias Number = Float

    private let byte: UInt8

    @inline(__always)
    static func units(_ kind: kernel_element) -> Int {
        switch kind {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .float64: notOfFloats()
        }
    }

    @inline(__always)
    static func load(
        _ source: UnsafePointer<AnyFloat>, _ kind: kernel_element, lanes: Int, fill: SIMD16<Float>
    ) -> SIMD16<Float> {
        switch kind {
        case .float32: loadLanes(Float.at(source), lanes: lanes, fill: fill)
        case .float16: loadLanes(Float16Bits.at(source), lanes: lanes, fill: fill)
        case .bfloat16: loadLanes(BFloat16Bits.at(source), lanes: lanes, fill: fill)
        case .float64: notOfFloats()
        }
    }

    @inline(__always)
    static func store(
        _ vector: SIMD16<Float>, to target: UnsafeMutablePointer<AnyFloat>, _ kind: kernel_element, lanes: Int,
        streams: Bool
    ) {
        switch kind {
        case .float32: Float.store(vector, to: Float.at(target), kind, lanes: lanes, streams: streams)
        case .float16: Float16Bits.store(vector, to: Float16Bits.at(target), kind, lanes: lanes, streams: streams)
        case .bfloat16:
            BFloat16Bits.store(vector, to: BFloat16Bits.at(target), kind, lanes: lanes, streams: streams)
        case .float64: notOfFloats()
        }
    }
}

extension FixedElement {
    @inline(__always)
    fileprivate static func at(_ place: UnsafePointer<AnyFloat>) -> UnsafePointer<Self> {
        UnsafeRawPointer(place).assumingMemoryBound(to: Self.self)
    }

    @inline(__always)
    fileprivate static func at(_ place: UnsafeMutablePointer<AnyFloat>) -> UnsafeMutablePointer<Self> {
        UnsafeMutableRawPointer(place).assumingMemoryBound(to: Self.self)
    }
}

/// A loop of float32 numbers never sees float64. The compiler knows it from here, and a debug build stops.
@inline(__always)
func notOfFloats() -> Never { preconditionFailure("float64 in a loop of float32 numbers") }
