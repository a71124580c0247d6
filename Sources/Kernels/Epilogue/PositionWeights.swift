// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The weights of positions along a strip: a vector of them within a plane, and one for all channels of a row.
struct PositionWeights<T: Arithmetic, L: Layout> {
    private let base: UnsafeMutablePointer<T>
    private let step: Int
    private let lanes: Int
    private let layout: kernel_layout

    /// The weights of a strip that runs within a segment, or with `step` 1 down the rows of a column.
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
