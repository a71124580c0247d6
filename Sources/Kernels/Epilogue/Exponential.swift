// SPDX-License-Identifier: Apache-2.0
import CKernels

/// e^v of what is not above 0, by additions, multiplications and a table, so that its bits are the same everywhere:
///
///     v = n · ln 2 / m + r        e^v = 2^(n / m) · e^r        |r| ≤ ln 2 / 2m
///
/// Adding 1.5 · 2^(bits of the significand) rounds to whole numbers and leaves n in the lowest bits. ln 2 / m is taken off in
/// two parts, the first of which has so few bits that n times it is exact. e^r is its Taylor series, whose first term left
/// out is below a fifth of a unit: r⁴/4! is 9·10⁻⁹ with m = 16, r¹⁴/14! is 4·10⁻¹⁸ with m = 1. Results below the normal
/// numbers are 0.
///
/// A float has m = 16 and a table of 2^(j / 16), each in two parts, so that its rounding is no part of the error.
extension Float {
    @inline(__always)
    static func exponential(_ v: SIMD16<Float>) -> SIMD16<Float> {
        let least = SIMD16(repeating: Float(-87.3))
        let parts = reduced(v, shifter: 0x1.8p23, perUnit: 0x1.715476p4, high: 0x1.62ep-5, low: 0x1.0bfbe8p-19)
        let r = parts.rest
        let beyond1 = r * r * (r * Float(1.0 / 6) + Float(0.5)) + r
        let sixteenth = vector_sixteenth(parts.shifted, 0)
        let power = sixteenth + (sixteenth * beyond1 + vector_sixteenth(parts.shifted, 1))
        return above(v, least, vector_raise(power, parts.shifted), .zero)
    }
}

extension Double {
    @inline(__always)
    static func exponential(_ v: SIMD16<Double>) -> SIMD16<Double> {
        let least = SIMD16(repeating: -708.3)
        let parts = reduced(
            v, shifter: 0x1.8p52, perUnit: 0x1.71547652b82fep0, high: 0x1.62e42fefa38p-1, low: 0x1.ef35793c7673p-45)
        return above(v, least, series(parts.rest, from: 13) * vector_power(parts.shifted), .zero)
    }

    /// Σ rᵏ / k!, by Horner's rule; the reciprocals of the factorials are constants of the compiled code.
    @inline(__always)
    private static func series(_ r: SIMD16<Double>, from last: Int) -> SIMD16<Double> {
        var factorial = 1.0
        for term in 1...last { factorial *= Double(term) }
        var sum = SIMD16(repeating: 1 / factorial)
        for term in stride(from: last, to: 0, by: -1) {
            factorial /= Double(term)
            sum = sum * r + 1 / factorial
        }
        return sum
    }
}

extension Arithmetic {
    /// n in the lowest bits of a significand, and r. `perUnit`: m / ln 2.
    @inline(__always)
    fileprivate static func reduced(
        _ v: SIMD16<Self>, shifter: Self, perUnit: Self, high: Self, low: Self
    ) -> (shifted: SIMD16<Self>, rest: SIMD16<Self>) {
        let shifted = v * perUnit + shifter
        let n = shifted - shifter
        return (shifted, (v - n * high) - n * low)
    }
}
