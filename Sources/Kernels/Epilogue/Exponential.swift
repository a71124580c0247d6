// SPDX-License-Identifier: Apache-2.0

/// e^v of what is not above 0, by additions and multiplications alone, so that its bits are the same everywhere:
///
///     v = n · ln 2 + r        e^v = 2ⁿ · e^r        |r| ≤ ln 2 / 2
///
/// Adding 1.5 · 2^(bits of the significand) rounds to whole numbers and leaves n in the lowest bits. ln 2 is taken off in two
/// parts, the first of which has so few bits that n times it is exact. e^r is its Taylor series, whose first term left
/// out is below a tenth of a unit: r⁸/8! is 5·10⁻⁹, r¹⁴/14! is 4·10⁻¹⁸. Results below the normal numbers are 0.
extension Float {
    @inline(__always)
    static func exponential(_ v: SIMD16<Float>) -> SIMD16<Float> {
        let least = SIMD16(repeating: Float(-87.3))
        let parts = reduced(v, shifter: 0x1.8p23, log2e: 0x1.715476p0, high: 0x1.62e4p-1, low: 0x1.7f7d1cp-20)
        let result = series(parts.rest, from: 7) * power(parts.shifted)
        return above(v, least, result, .zero)
    }
}

extension Double {
    @inline(__always)
    static func exponential(_ v: SIMD16<Double>) -> SIMD16<Double> {
        let least = SIMD16(repeating: -708.3)
        let parts = reduced(
            v, shifter: 0x1.8p52, log2e: 0x1.71547652b82fep0, high: 0x1.62e42fefa38p-1, low: 0x1.ef35793c7673p-45)
        let result = series(parts.rest, from: 13) * power(parts.shifted)
        return above(v, least, result, .zero)
    }
}

extension Arithmetic {
    /// n in the lowest bits of a significand, and r.
    @inline(__always)
    fileprivate static func reduced(
        _ v: SIMD16<Self>, shifter: Self, log2e: Self, high: Self, low: Self
    ) -> (shifted: SIMD16<Self>, rest: SIMD16<Self>) {
        let shifted = v * log2e + shifter
        let n = shifted - shifter
        return (shifted, (v - n * high) - n * low)
    }

    /// Σ rᵏ / k!, by Horner's rule; the reciprocals of the factorials are constants of the compiled code.
    @inline(__always)
    fileprivate static func series(_ r: SIMD16<Self>, from last: Int) -> SIMD16<Self> {
        var factorial = 1.0
        for term in 1...last { factorial *= Double(term) }
        var sum = SIMD16<Self>(repeating: Self(1 / factorial))
        for term in stride(from: last, to: 0, by: -1) {
            factorial /= Double(term)
            sum = sum * r + Self(1 / factorial)
        }
        return sum
    }
}
