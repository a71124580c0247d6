// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A pointer argument and the memory that it stands for: `runs` pieces of `width` bytes, `stride` bytes apart.
struct Region {
    let name: StaticString
    let base: UInt
    let runs: Int
    let width: Int
    let stride: Int
    let alignment: Int

    /// An array of one element per channel; or rows of such.
    @inline(never)
    init(_ name: StaticString, _ base: UnsafeRawPointer?, rows: Int = 1, count: Int, size: Int) {
        self.init(name, base, runs: rows, width: count * size, stride: count * size, alignment: size)
    }

    /// A tensor.
    @inline(never)
    init(_ name: StaticString, _ base: UnsafeRawPointer?, _ geometry: Geometry, stride: Int) {
        let size = geometry.elementSize
        self.init(
            name, base, runs: geometry.outer, width: geometry.channels * geometry.inner * size, stride: stride * size,
            alignment: size)
    }

    @inline(never)
    init<T>(_ name: StaticString, structure: UnsafePointer<T>) {
        let size = MemoryLayout<T>.size
        self.init(name, structure, runs: 1, width: size, stride: size, alignment: MemoryLayout<T>.alignment)
    }

    private init(_ name: StaticString, _ base: UnsafeRawPointer?, runs: Int, width: Int, stride: Int, alignment: Int) {
        self.name = name
        self.base = UInt(bitPattern: base)
        self.runs = base == nil ? 0 : runs
        self.width = width
        self.stride = stride
        self.alignment = alignment
    }

    /// Makes it all zeros; of an output.
    func clear() { memset(UnsafeMutableRawPointer(bitPattern: base).unsafelyUnwrapped, 0, runs * width) }

    private var isEmpty: Bool { runs == 0 || width == 0 }
    private var isDense: Bool { runs == 1 || stride == width }
    /// Wrapping, as a pointer may be anything.
    private var end: UInt { base &+ UInt((runs - 1) * stride + width) }

    /// Whether the two have a byte in common. Slices of one parent that lie in each other's gaps do not.
    func overlaps(_ other: Region) -> Bool {
        if isEmpty || other.isEmpty || base >= other.end || other.base >= end { return false }
        if isDense { return other.meets(base..<end) }
        if other.isDense { return meets(other.base..<other.end) }
        if stride == other.stride {
            // Every run of either lies alike among the other's.
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

    /// Whether some run has a byte in these addresses.
    private func meets(_ addresses: Range<UInt>) -> Bool {
        let part = addresses.clamped(to: base..<end)
        let offset = (part.lowerBound - base) % UInt(stride)
        return !part.isEmpty && (offset < UInt(width) || offset + UInt(part.count) > UInt(stride))
    }

    /// Whether it is the other argument's memory, first to last.
    func coincides(with other: Region) -> Bool { base == other.base && stride == other.stride }

    func isArgument(_ other: Region) -> Bool { name.utf8Start == other.name.utf8Start }
}
