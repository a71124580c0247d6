// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The axes of a tensor that have more than one element, from the innermost in memory to the outermost. They are found one
/// by one, so that they need no memory; of two with one stride the later one comes first.
struct MemoryOrder {
    private let sizes: UnsafePointer<Int64>
    private let strides: UnsafePointer<Int64>
    private var left: UInt64 = 0

    init(rank: Int, _ sizes: UnsafePointer<Int64>, _ strides: UnsafePointer<Int64>) {
        self.sizes = sizes
        self.strides = strides
        for axis in 0..<rank where sizes[axis] > 1 { left |= 1 << UInt64(axis) }
    }

    mutating func next() -> Int? {
        if left == 0 { return nil }
        var axis = 63 - left.leadingZeroBitCount
        var others = left & ~(1 << UInt64(axis))
        while others != 0 {
            let other = 63 - others.leadingZeroBitCount
            if strides[other] < strides[axis] { axis = other }
            others &= ~(1 << UInt64(other))
        }
        left &= ~(1 << UInt64(axis))
        return axis
    }
}
