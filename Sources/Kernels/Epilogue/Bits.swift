// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Bits of elements along a strip.
struct Bits {
    private let base: UnsafePointer<UInt8>
    private let first: Int
    private let step: Int
    private let last: Int

    @inline(__always)
    init(_ tile: kernel_tile, _ strip: Strip, step: Int = laneCount) {
        base = tile.bits.base
        first = tile.bits.first + strip.run * tile.bits.stride + strip.segment * tile.pitch + strip.column
        self.step = step
        last = strip.lanes - 1
    }

    /// Those of a vector, the first lane's the lowest; no byte is read that has none of them.
    @inline(__always)
    func at(_ k: Int) -> UInt32 {
        let bit = first + k * step
        let bytes = base + bit / 8
        var bits = UInt32(bytes[0])
        let end = (bit % 8 + last) / 8
        if end > 0 { bits |= UInt32(bytes[1]) << 8 }
        if end > 1 { bits |= UInt32(bytes[2]) << 16 }
        return bits >> UInt32(bit % 8)
    }
}
