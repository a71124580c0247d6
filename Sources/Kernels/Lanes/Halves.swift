// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Sixteen bits in memory, float32 in a register. Stores round to nearest, ties to even.
protocol HalfElement: FixedElement where Number == Float {
    static func widen(_ bits: vector_u16x16) -> SIMD16<Float>
    static func narrow(_ vector: SIMD16<Float>) -> vector_u16x16
}

/// IEEE 754 binary16: eleven bits of precision.
struct Float16Bits: HalfElement {
    let bits: UInt16

    @inline(__always)
    static func widen(_ bits: vector_u16x16) -> SIMD16<Float> { vector_widen_f16(bits) }

    @inline(__always)
    static func narrow(_ vector: SIMD16<Float>) -> vector_u16x16 { vector_narrow_f16(vector) }
}

/// bfloat16: the upper half of a float32, eight bits of precision.
struct BFloat16Bits: HalfElement {
    let bits: UInt16

    @inline(__always)
    static func widen(_ bits: vector_u16x16) -> SIMD16<Float> { vector_widen_bf16(bits) }

    @inline(__always)
    static func narrow(_ vector: SIMD16<Float>) -> vector_u16x16 { vector_narrow_bf16(vector) }
}

extension HalfElement {
    @inline(__always)
    static func load(_ source: UnsafePointer<Self>) -> SIMD16<Float> { widen(vector_load_u16(source)) }

    @inline(__always)
    static func store(_ vector: SIMD16<Float>, to target: UnsafeMutablePointer<Self>) {
        vector_store_u16(narrow(vector), target)
    }

    @inline(__always)
    static func load(_ source: UnsafePointer<Self>, lanes: Int, fill: SIMD16<Float>) -> SIMD16<Float> {
        vector_fill(widen(vector_load_some_u16(source, lanes)), lanes, fill)
    }

    @inline(__always)
    static func store(_ vector: SIMD16<Float>, to target: UnsafeMutablePointer<Self>, lanes: Int) {
        vector_store_some_u16(narrow(vector), target, lanes)
    }

    @inline(__always)
    static func stream(_ vector: SIMD16<Float>, to target: UnsafeMutablePointer<Self>) {
        vector_stream_u16(narrow(vector), target)
    }
}
