// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The buffers that a handler takes and gives, a letter for each, results after ">": t a tensor of x's shape, c an array of
/// channels, s two rows of doubles per channel and k three, u sums and m moments of parts, U and M those of all parts. A
/// buffer after "?" is there if the next bit of the attribute `given` is set.
struct XLASignature {
    let letters: UnsafePointer<CChar>
    let given: Int

    struct Entry {
        /// Among the letters, be their buffers there or not.
        let place: Int
        let kind: UInt8
        let buffer: UnsafePointer<xla_buffer>
        let isResult: Bool
    }

    /// Calls the body for each buffer that is there; false where it is, or if the call has other numbers of them.
    @inline(never)
    @_optimize(size) func all(of call: UnsafePointer<xla_call>, _ body: (Entry) -> Bool) -> Bool {
        var (place, bit, index, next) = (0, 0, 0, 0)
        var list = call.pointee.operands
        var isResult = false
        while letters[next] != 0 {
            let letter = UInt8(bitPattern: letters[next])
            next += 1
            if letter == UInt8(ascii: ">") {
                if index != Int(list.count) { return false }
                (list, index, isResult) = (call.pointee.results, 0, true)
                continue
            }
            if letter == UInt8(ascii: "?") {
                bit += 1
                if given & 1 << (bit - 1) != 0 { continue }
                next += 1
                place += 1
                continue
            }
            guard index < Int(list.count), list.kinds[index] == Int32(xla_is_buffer), let buffer = list.buffers[index],
                body(Entry(place: place, kind: letter, buffer: buffer, isResult: isResult))
            else { return false }
            index += 1
            place += 1
        }
        return index == Int(list.count)
    }

    /// The first buffer of a kind.
    @_optimize(size) func first(_ kind: StaticString, of call: UnsafePointer<xla_call>) -> UnsafePointer<xla_buffer>? {
        var found: UnsafePointer<xla_buffer>?
        _ = all(of: call) { entry in
            if entry.kind == kind.utf8Start[0] && found == nil { found = entry.buffer }
            return true
        }
        return found
    }
}

/// The integers by which JAX tells a handler what is not in its buffers.
struct XLAAttributes {
    let attributes: xla_attributes

    subscript(name: StaticString) -> Int? {
        for index in 0..<Int(attributes.count) {
            let given = attributes.names[index]!.pointee
            guard given.length == name.utf8CodeUnitCount, memcmp(given.bytes, name.utf8Start, given.length) == 0 else {
                continue
            }
            guard attributes.kinds[index] == Int32(xla_is_scalar), let scalar = attributes.scalars[index],
                scalar.pointee.dtype == Int32(xla_s64)
            else { return nil }
            return scalar.pointee.value.load(as: Int.self)
        }
        return nil
    }
}
