// SPDX-License-Identifier: Apache-2.0

/// A tensor: its first element, and the elements from one outer index to the next.
struct Operand {
    var base: UnsafeMutableRawPointer?
    var stride = 0

    func slice(_ slice: Slice, _ elementSize: Int) -> Operand {
        Operand(base: base.map { $0 + slice.start * stride * elementSize }, stride: stride * slice.step)
    }
}

/// Some outer indices that are handled as one tensor: `count` of them, `step` apart; and the group that they are of.
struct Slice {
    let start: Int
    let count: Int
    let step: Int
    let group: Int
}

/// A range of outer indices, and one of positions within each of them.
typealias Extent = (outer: Range<Int>, inner: Range<Int>)
