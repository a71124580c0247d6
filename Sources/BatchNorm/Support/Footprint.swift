// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The memory that an argument stands for: `runs` pieces of `width` bytes, `stride` bytes apart.
///
///     base
///     |<-- width -->|            |             |            |             |
///     |#############|            |#############|            |#############|      runs = 3
///     |<-------- stride -------->|
struct Footprint {
    /// No function takes more pointers, its structures among them.
    static let mostOfACall = 32

    let name: StaticString
    let base: UInt
    private let runs: Int
    private let width: Int
    private let stride: Int
    private let alignment: Int

    /// A NULL pointer has no memory.
    @inline(never)
    init(_ name: StaticString, _ base: UnsafeRawPointer?, runs: Int, width: Int, stride: Int, alignment: Int) {
        self.name = name
        self.base = UInt(bitPattern: base)
        self.runs = base == nil ? 0 : runs
        self.width = width
        self.stride = stride
        self.alignment = alignment
    }

    private var isEmpty: Bool { runs == 0 || width == 0 }
    private var isDense: Bool { runs == 1 || stride == width }
    /// Wrapping, as a pointer may be anything.
    private var end: UInt { base &+ UInt((runs - 1) * stride + width) }

    /// True if the two have a byte in common. Slices of one parent that lie in each other's gaps do not.
    func overlaps(_ other: Footprint) -> Bool {
        if isEmpty || other.isEmpty || base >= other.end || other.base >= end { return false }
        if isDense { return other.meets(base..<end) }
        if other.isDense { return meets(other.base..<other.end) }
        if stride == other.stride {
            // The strides are equal, so that all runs of one lie alike among those of the other: one pair decides.
            let (low, high) = base <= other.base ? (self, other) : (other, self)
            let offset = Int(high.base - low.base) % stride
            return offset < low.width || offset + high.width > stride
        }
        let (few, many) = runs <= other.runs ? (self, other) : (other, self)
        for run in 0..<few.runs {
            let start = few.base + UInt(run * few.stride)
            if many.meets(start..<start + UInt(few.width)) { return true }
        }
        return false
    }

    /// True if some run has a byte in these addresses.
    private func meets(_ addresses: Range<UInt>) -> Bool {
        let part = addresses.clamped(to: base..<end)
        let offset = (part.lowerBound - base) % UInt(stride)
        return !part.isEmpty && (offset < UInt(width) || offset + UInt(part.count) > UInt(stride))
    }

    /// True if it is the other argument's memory, first to last.
    func coincides(with other: Footprint) -> Bool { base == other.base && stride == other.stride }

    func checkAlignment() throws(Failure) {
        if base % UInt(alignment) == 0 { return }
        throw Failure(
            BN_ERROR_ALIGNMENT, name, .address(base),
            expected: alignment == 8
                ? "an address that is a multiple of 8"
                : alignment == 4 ? "an address that is a multiple of 4" : "an even address")
    }
}
