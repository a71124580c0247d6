// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The bounds of an activation that is its argument in between. NaN stays NaN.
struct Clip<T: Arithmetic> {
    private let low: SIMD16<T>
    private let high: SIMD16<T>
    private let top: SIMD16<T>

    @inline(__always)
    init(_ epilogue: kernel_epilogue) {
        low = SIMD16(repeating: T(epilogue.low))
        high = SIMD16(repeating: T(epilogue.high))
        top = SIMD16(repeating: T(epilogue.top))
    }

    @inline(__always)
    func value(_ u: SIMD16<T>) -> SIMD16<T> {
        let raised = T.above(low, u, low, u)
        return T.above(raised, high, high, raised)
    }

    /// The part of dy that passes.
    @inline(__always)
    func gradient(_ dy: SIMD16<T>, _ u: SIMD16<T>) -> SIMD16<T> {
        T.above(u, low, T.above(u, top, .zero, dy), .zero)
    }
}
