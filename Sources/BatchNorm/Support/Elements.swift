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

    init?(ifAny base: UnsafeRawPointer?, _ type: kernel_element) {
        guard let base else { return nil }
        self.init(base, type)
    }

    subscript(index: Int) -> Double {
        @inline(__always)
        get { self[AnyElement.self, index] }
        @inline(__always)
        nonmutating set { self[AnyElement.self, index] = newValue }
    }

    /// In a loop whose elements are of a type that is known before it, or of any.
    subscript<A: Access>(_: A.Type, index: Int) -> Double {
        @inline(__always)
        get { A.load(self, index) }
        @inline(__always)
        nonmutating set { A.store(newValue, self, index) }
    }

    /// From one of them on.
    func from(_ index: Int) -> Elements { Elements(base + index * type.size, type) }

    @inline(__always)
    fileprivate func at<T>(_ index: Int, _: T.Type) -> UnsafeMutablePointer<T> {
        base.assumingMemoryBound(to: T.self) + index
    }
}

extension kernel_element {
    /// The nearest element to a number.
    func rounded(_ value: Double) -> Double {
        var place = 0.0
        return withUnsafeMutableBytes(of: &place) {
            let element = Elements($0.baseAddress.unsafelyUnwrapped, self)
            element[0] = value
            return element[0]
        }
    }
}

/// A way to read and write elements.
protocol Access {
    static func load(_ elements: Elements, _ index: Int) -> Double
    static func store(_ value: Double, _ elements: Elements, _ index: Int)
}

extension Float: Access {
    @inline(__always)
    static func load(_ elements: Elements, _ index: Int) -> Double { Double(elements.at(index, Float.self).pointee) }

    @inline(__always)
    static func store(_ value: Double, _ elements: Elements, _ index: Int) {
        elements.at(index, Float.self).pointee = Float(value)
    }
}

extension Double: Access {
    @inline(__always)
    static func load(_ elements: Elements, _ index: Int) -> Double { elements.at(index, Double.self).pointee }

    @inline(__always)
    static func store(_ value: Double, _ elements: Elements, _ index: Int) {
        elements.at(index, Double.self).pointee = value
    }
}

/// By their type, one by one.
enum AnyElement: Access {
    @inline(never)
    static func load(_ elements: Elements, _ index: Int) -> Double {
        switch elements.type {
        case .float32: Float.load(elements, index)
        case .float64: Double.load(elements, index)
        case .float16: Half.binary16.double(elements.at(index, UInt16.self).pointee)
        case .bfloat16: Half.bfloat16.double(elements.at(index, UInt16.self).pointee)
        }
    }

    @inline(never)
    static func store(_ value: Double, _ elements: Elements, _ index: Int) {
        switch elements.type {
        case .float32: Float.store(value, elements, index)
        case .float64: Double.store(value, elements, index)
        case .float16: elements.at(index, UInt16.self).pointee = Half.binary16.bits(value)
        case .bfloat16: elements.at(index, UInt16.self).pointee = Half.bfloat16.bits(value)
        }
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
