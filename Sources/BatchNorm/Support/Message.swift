// SPDX-License-Identifier: Apache-2.0
import CKernels

/// One line of text in memory that stays where it is, cut off where that ends.
struct Message {
    static let capacity = 256

    let text: UnsafeMutablePointer<CChar>
    private var length = 0

    init(_ text: UnsafeMutablePointer<CChar>) { self.text = text }

    mutating func clear() {
        length = 0
        text[0] = 0
    }

    mutating func append(_ string: StaticString) {
        UnsafeRawPointer(string.utf8Start).withMemoryRebound(to: CChar.self, capacity: string.utf8CodeUnitCount) {
            append($0, string.utf8CodeUnitCount)
        }
    }

    mutating func append(text: UnsafePointer<CChar>) { append(text, strlen(text)) }

    mutating func append(_ prefix: StaticString, _ value: Int) {
        append(prefix)
        if value < 0 { append("-") }
        append(digits: value.magnitude)
    }

    mutating func append(_ prefix: StaticString, _ value: UInt) {
        append(prefix)
        append(digits: value)
    }

    mutating func append(_ prefix: StaticString, _ value: Double) {
        append(prefix)
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 32) {
            append($0.baseAddress!, Int(machine_print(value, $0.baseAddress!, 32)))
        }
    }

    /// Somebody else's text, of which only printable ASCII is fit for one line of UTF-8.
    mutating func append(_ prefix: StaticString, _ value: UnsafePointer<CChar>, _ suffix: StaticString) {
        append(prefix)
        for index in 0..<strlen(value) {
            var character = 32...126 ~= value[index] ? value[index] : CChar(UInt8(ascii: "?"))
            append(&character, 1)
        }
        append(suffix)
    }

    mutating func append(_ index: Int, _ value: Double) {
        append("[", index)
        append("] is ", value)
    }

    mutating func append(_ prefix: StaticString, hexadecimal value: UInt) {
        append(prefix)
        append("0x")
        append(digits: value, base: 16)
    }

    private mutating func append(digits value: UInt, base: UInt = 10) {
        if value >= base { append(digits: value / base, base: base) }
        let digit = value % base
        var character = CChar(digit < 10 ? 48 + digit : 87 + digit)
        append(&character, 1)
    }

    private mutating func append(_ source: UnsafePointer<CChar>, _ count: Int) {
        let kept = min(count, Message.capacity - 1 - length)
        (text + length).update(from: source, count: kept)
        length += kept
        text[length] = 0
    }
}

/// A literal as a C string: it ends with a zero byte of its own.
func characters(_ text: StaticString) -> UnsafePointer<CChar> {
    UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
}
