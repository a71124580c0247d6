// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Twice as many strips side by side: their additions wait for one another only in pairs of their own.
struct Pair<T: Accumulator>: Accumulator {
    typealias ChannelLayout = T.ChannelLayout
    typealias Totals = (T.Totals, T.Totals)

    private let left: T
    private let right: T

    static var strips: Int { 2 * T.strips }
    static var zero: Totals { (T.zero, T.zero) }

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        left = T(tile, channels, strip)
        right = T(tile, channels, Pair.second(tile, strip))
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        left.prefetch(k)
        right.prefetch(k)
    }

    @inline(__always)
    func add(_ k: Int, to totals: Totals) -> Totals { (left.add(k, to: totals.0), right.add(k, to: totals.1)) }

    @inline(__always)
    static func finish(_ totals: Totals, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        T.finish(totals.0, tile, channels, strip)
        T.finish(totals.1, tile, channels, second(tile, strip))
    }

    @inline(__always)
    private static func second(_ tile: kernel_tile, _ strip: Strip) -> Strip {
        let columns = ChannelLayout.channelPerColumn(tile.layout) ? T.strips * laneCount : 0
        let segments = ChannelLayout.channelPerColumn(tile.layout) ? 0 : T.strips
        return Strip(
            run: strip.run, segment: strip.segment + segments, column: strip.column + columns, count: strip.count,
            lanes: strip.lanes)
    }
}
