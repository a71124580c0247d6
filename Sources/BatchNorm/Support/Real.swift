// SPDX-License-Identifier: Apache-2.0

/// A type that elements are computed with.
protocol Real: BinaryFloatingPoint {
    /// The range of a weight above 0: sums of such weights, and inverses of sums, are normal doubles; so are products with
    /// squares that are not extreme themselves. All float32 weights are within it.
    static var leastWeight: Self { get }
    static var greatestWeight: Self { get }
}

extension Float: Real {
    static var leastWeight: Float { .leastNonzeroMagnitude }
    static var greatestWeight: Float { .greatestFiniteMagnitude }
}

extension Double: Real {
    static var leastWeight: Double { 1e-150 }
    static var greatestWeight: Double { 1e150 }
}

extension BinaryFloatingPoint {
    /// True if it is finite, by one subtraction. isFinite takes the exponent apart, which is 13 instructions more for each
    /// channel of a call.
    @inline(__always)
    var isFiniteByDifference: Bool { self - self == 0 }
}
