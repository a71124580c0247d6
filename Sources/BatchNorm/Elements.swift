// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Elements in memory, of whatever type, one at a time as doubles; what is stored is rounded once, to nearest, ties to
/// even.
struct Elements {
    let base: UnsafeMutableRawPointer
    let type: kernel_element

    init(_ base: UnsafeRawPointer, _ type: kernel_element) {
        self.base = UnsafeMutableRawPointer(mutating: base)
        self.type = type
    }

    subscript(index: Int) -> Double {
        @inline(__always)
        get {
            switch type {
            case KERNEL_FLOAT32: Double(at(index, Float.self).pointee)
            case KERNEL_FLOAT64: at(index, Double.self).pointee
            case KERNEL_FLOAT16: Half.binary16.double(at(index, UInt16.self).pointee)
            default: Half.bfloat16.double(at(index, UInt16.self).pointee)
            }
        }
        @inline(__always)
        nonmutating set {
            switch type {
            case KERNEL_FLOAT32: at(index, Float.self).pointee = Float(newValue)
            case KERNEL_FLOAT64: at(index, Double.self).pointee = newValue
            case KERNEL_FLOAT16: at(index, UInt16.self).pointee = Half.binary16.bits(newValue)
            default: at(index, UInt16.self).pointee = Half.bfloat16.bits(newValue)
            }
        }
    }

    @inline(__always)
    private func at<T>(_ index: Int, _: T.Type) -> UnsafeMutablePointer<T> {
        base.assumingMemoryBound(to: T.self) + index
    }
}

/// A format of sixteen bits: sign, exponent, and so many bits behind the point.
struct Half {
    let fraction: Int
    private var bias: Int { (1 << (14 - fraction)) - 1 }

    /// IEEE 754 binary16, and the upper half of a float32.
    static let binary16 = Half(fraction: 10)
    static let bfloat16 = Half(fraction: 7)

    @inline(never)
    func double(_ bits: UInt16) -> Double {
        let exponent = Int(bits & 0x7fff) >> fraction
        let magnitude: Double
        if exponent == 2 * bias + 1 {
            magnitude = bits << (16 - fraction) == 0 ? .infinity : .nan
        } else {
            let hidden = exponent == 0 ? 0 : 1 << fraction
            let significand = Double(Int(bits) & ((1 << fraction) - 1) | hidden)
            magnitude = significand * power(max(exponent, 1) - bias - fraction)
        }
        return bits >> 15 == 0 ? magnitude : -magnitude
    }

    @inline(never)
    func bits(_ value: Double) -> UInt16 {
        let sign = UInt16(value.bitPattern >> 63) << 15
        let magnitude = value.magnitude
        let infinity = (2 * bias + 1) << fraction
        if value != value { return sign | UInt16(infinity | 1 << (fraction - 1)) }
        // The unit in the last place; that of subnormal numbers is the one of the least normal ones.
        let exponent = max(Int(magnitude.bitPattern >> 52) - 1023, 1 - bias)
        if exponent > bias { return sign | UInt16(infinity) }
        let units = magnitude * power(fraction - exponent)
        // Doubles beyond 2⁵² are whole: the sum is rounded to one. As the hidden bit counts, a carry goes into the
        // exponent by itself, and from the largest number to infinity.
        let whole = Int((units + 0x1p52) - 0x1p52)
        return sign | UInt16(((exponent + bias - 1) << fraction) + whole)
    }

    private func power(_ exponent: Int) -> Double { Double(bitPattern: UInt64(exponent + 1023) << 52) }
}
