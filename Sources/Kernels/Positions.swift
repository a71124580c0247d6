// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The weights of positions along a strip: a vector of them within a plane, and one for all channels of a row.
struct Positions<T: Arithmetic, L: Layout> {
    private let base: UnsafeMutablePointer<T>
    private let step: Int
    private let lanes: Int
    private let layout: kernel_layout

    /// Of a strip that runs within a stretch, or with `step` 1 down the rows of a column.
    @inline(__always)
    init(_ tile: kernel_tile, _ strip: Strip, rows: Int = 0) {
        let offset = strip.run * tile.weights.stride + (L.channelPerColumn(tile.layout) ? 0 : strip.column)
        base = tile.weights.base.assumingMemoryBound(to: T.self) + offset
        step = L.channelPerColumn(tile.layout) ? rows * tile.weights.stride : laneCount
        lanes = strip.lanes
        layout = tile.layout
    }

    @inline(__always)
    func at(_ k: Int) -> SIMD16<T> {
        let place = UnsafePointer(base + k * step)
        return L.channelPerColumn(layout) ? SIMD16(repeating: place.pointee) : loadLanes(place, lanes: lanes)
    }
}

/// Bits of elements along a strip.
struct Bits {
    private let base: UnsafePointer<UInt8>
    private let first: Int
    private let step: Int
    private let last: Int

    @inline(__always)
    init(_ tile: kernel_tile, _ strip: Strip, step: Int = laneCount) {
        base = tile.bits.base
        first = tile.bits.first + strip.run * tile.bits.stride + strip.stretch * tile.pitch + strip.column
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
