// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Why a call cannot be served: the argument at fault, what was found there, and what was expected.
struct Failure: Error, @unchecked Sendable {
    enum Found {
        case null
        /// A pointer, where there should be none.
        case set
        case integer(Int)
        /// A size, which is negative where a caller made one of a negative number; and the least that it may be.
        case size(Int, least: Int? = nil)
        /// That of a structure, and what it should be.
        case structSize(Int, Int)
        case real(Double)
        /// One of an array.
        case element(Int, Double)
        /// One of an array of sizes. As a double it would be rounded, which raises a flag.
        case count(Int, UInt)
        /// The failure's own, made by `copied`.
        case text(UnsafeMutablePointer<CChar>)
        /// One of an array of integers, and the least that it may be.
        case entry(Int, Int, least: Int? = nil)
        /// An axis of a tensor that lies in memory beside another.
        case axis(Int, besides: Int)
        case address(UInt)
        case overlap(StaticString)
    }

    let status: bn_status
    /// Literals, by their addresses: a StaticString is three times as large, and every throw copies the failure.
    let subject: UnsafePointer<CChar>
    let found: Found
    let expected: UnsafePointer<CChar>

    @inline(never)
    init(_ status: bn_status, _ subject: StaticString, _ found: Found, expected: StaticString) {
        self.status = status
        self.subject = characters(subject)
        self.found = found
        self.expected = characters(expected)
    }

    /// "bn_normalize: eps is -1; expected a finite number, at least 0"
    @_optimize(size)
    func describe(in function: StaticString, to message: inout Message) {
        message.clear()
        message.append(function)
        message.append(": ")
        message.append(text: subject)
        switch found {
        case .null: message.append(" is NULL")
        case .set: message.append(" is given")
        case .integer(let value): message.append(" is ", value)
        case .size(let value, _):
            message.append(" is ", UInt(bitPattern: value))
            if value < 0 {
                message.append(" (", value)
                message.append(" if it is signed)")
            }
        case .structSize(let value, _): message.append(" is ", UInt(bitPattern: value))
        case .real(let value): message.append(" is ", value)
        case .element(let index, let value): message.append(index, value)
        case .count(let index, let value):
            message.append("[", index)
            message.append("] is ", value)
        case .entry(let index, let value, _):
            message.append("[", index)
            message.append("] is ", value)
        case .axis(let axis, let other):
            message.append(" ", axis)
            message.append(" lies beside axis ", other)
        case .address(let value): message.append(" is ", hexadecimal: value)
        case .text(let value): message.append(" is '", value, "'")
        case .overlap(let other):
            message.append(" overlaps ")
            message.append(other)
        }
        message.append("; expected ")
        message.append(text: expected)
        switch found {
        case .structSize(_, let size), .size(_, .some(let size)), .entry(_, _, .some(let size)):
            message.append(", which is ", size)
        default: break
        }
    }
}

extension Failure.Found {
    /// The start of a text of the environment's, whose own memory is the host's to change.
    static func copied(_ text: UnsafePointer<CChar>) -> Failure.Found { strndup(text, 64).map { .text($0) } ?? .null }

    func discard() {
        if case .text(let text) = self { free(text) }
    }
}
