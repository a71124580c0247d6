// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Two sums per lane, in double whatever the element type.
struct Sums {
    var first: SIMD16<Double>
    var second: SIMD16<Double>

    static var zero: Sums { Sums(first: .zero, second: .zero) }

    @inline(__always)
    static func + (a: Sums, b: Sums) -> Sums { Sums(first: a.first + b.first, second: a.second + b.second) }
}

/// What one vector of a strip adds to the sums.
protocol Terms {
    associatedtype Order: Layout
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip)
    func prefetch(_ k: Int)
    func term(_ k: Int) -> Sums
}

/// The one loop that reads tensors to learn something of their channels.
@inline(__always)
func reduce<T: Terms>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    if T.Order.channelPerColumn {
        reduceColumns(T.self, tile, channels)
    } else {
        reduceStretches(T.self, tile, channels)
    }
}

@inline(__always)
private func sum<T: Terms>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, from start: Sums
) -> Sums {
    let terms = T(tile, channels, strip)
    var sums = start
    for k in 0..<strip.count {
        terms.prefetch(k)
        sums = sums + terms.term(k)
    }
    return sums
}

/// Planes: strips run within a stretch, and all of a channel's are summed before the next channel.
@inline(__always)
private func reduceStretches<T: Terms>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    let rest = tile.length % laneCount
    for stretch in 0..<tile.stretches {
        var sums = Sums.zero
        for run in 0..<tile.runs {
            let whole = Strip(run: run, stretch: stretch, column: 0, count: tile.length / laneCount, lanes: laneCount)
            sums = sum(T.self, tile, channels, whole, from: sums)
            if rest != 0 {
                let last = Strip(run: run, stretch: stretch, column: tile.length - rest, count: 1, lanes: rest)
                sums = sum(T.self, tile, channels, last, from: sums)
            }
        }
        channels.first[stretch] = sums.first.sum()
        channels.second[stretch] = sums.second.sum()
    }
}

/// Rows: strips run down a column of vectors, in bands of runs. The sums of a band join those of the bands before it,
/// which wait where the results will be.
@inline(__always)
private func reduceColumns<T: Terms>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    let rest = tile.length % laneCount
    for run in stride(from: 0, to: tile.runs, by: tile.band) {
        let count = min(tile.band, tile.runs - run)
        for column in stride(from: 0, to: tile.length - rest, by: laneCount) {
            let strip = Strip(run: run, stretch: 0, column: column, count: count, lanes: laneCount)
            reduceColumn(T.self, tile, channels, strip)
        }
        if rest != 0 {
            let strip = Strip(run: run, stretch: 0, column: tile.length - rest, count: count, lanes: rest)
            reducePartOfColumn(T.self, tile, channels, strip)
        }
    }
}

@inline(__always)
private func reduceColumn<T: Terms>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
    var sums = sum(T.self, tile, channels, strip, from: .zero)
    let first = channels.first + strip.column
    let second = channels.second + strip.column
    if strip.run > 0 {
        sums = Sums(first: loadLanes(first, lanes: strip.lanes), second: loadLanes(second, lanes: strip.lanes)) + sums
    }
    storeLanes(sums.first, to: first, lanes: strip.lanes)
    storeLanes(sums.second, to: second, lanes: strip.lanes)
}

@inline(never)
private func reducePartOfColumn<T: Terms>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip
) {
    reduceColumn(T.self, tile, channels, strip)
}

extension Column {
    /// An operand along a strip of a reduction: within a stretch, or from run to run, where the next band comes next.
    @inline(__always)
    init<L: Layout>(reducing operand: kernel_operand, _ tile: kernel_tile, _ strip: Strip, _: L.Type) {
        self.init(
            operand, tile, strip, step: L.channelPerColumn ? operand.stride : laneCount,
            ahead: L.channelPerColumn ? tile.band * operand.stride : tile.ahead)
    }
}
