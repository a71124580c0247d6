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

/// The terms that the vectors of a strip add to the sums of its channels.
protocol Accumulator {
    associatedtype ChannelLayout: Layout
    associatedtype Totals = Sums
    /// The same for several strips at once.
    associatedtype Unrolled: Accumulator = Self
    /// Strips that are summed at once.
    static var strips: Int { get }
    /// True if its loop is worth having at several places.
    static var isShort: Bool { get }
    static var zero: Totals { get }
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip)
    func prefetch(_ k: Int)
    func add(_ k: Int, to totals: Totals) -> Totals
    static func finish(_ totals: Totals, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip)
}

/// The one loop that reads tensors to learn something of their channels. As many strips at once as an instruction set has
/// registers for, then those left over one by one; the bits of a channel are the same either way.
@inline(__always)
func reduce<T: Accumulator>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    if T.ChannelLayout.channelPerColumn(tile.layout) {
        reduceColumns(T.self, tile, channels)
    } else {
        let done = reduceSegments(T.Unrolled.self, tile, channels, from: 0)
        if T.Unrolled.strips > 1 { _ = reduceSegments(T.self, tile, channels, from: done) }
    }
}

@inline(__always)
private func sum<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, from start: T.Totals
) -> T.Totals {
    T.isShort
        ? sumInline(T.self, tile, channels, strip, from: start) : sumStrip(T.self, tile, channels, strip, from: start)
}

/// Any strip of long terms, whose loop is there once.
@inline(never)
private func sumStrip<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, from start: T.Totals
) -> T.Totals {
    sumInline(T.self, tile, channels, strip, from: start)
}

@inline(__always)
private func sumInline<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, from start: T.Totals
) -> T.Totals {
    let terms = T(tile, channels, strip)
    var totals = start
    for k in 0..<strip.count {
        terms.prefetch(k)
        totals = terms.add(k, to: totals)
    }
    return totals
}

/// Planes: strips run within a segment, and all of a channel's are summed before the next channel.
@inline(__always)
private func reduceSegments<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, from first: Int
) -> Int {
    let rest = tile.length % laneCount
    var segment = first
    while segment + T.strips <= tile.segments {
        var totals = T.zero
        for run in 0..<tile.runs {
            let whole = Strip(run: run, segment: segment, column: 0, count: tile.length / laneCount, lanes: laneCount)
            totals = sum(T.self, tile, channels, whole, from: totals)
            if rest != 0 {
                let last = Strip(run: run, segment: segment, column: tile.length - rest, count: 1, lanes: rest)
                totals = sum(T.self, tile, channels, last, from: totals)
            }
        }
        T.finish(totals, tile, channels, Strip(run: 0, segment: segment, column: 0, count: 0, lanes: laneCount))
        segment += T.strips
    }
    return segment
}

/// Rows: strips run down a column of vectors, in bands of runs.
@inline(__always)
private func reduceColumns<T: Accumulator>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    let rest = tile.length % laneCount
    var run = 0
    while run < tile.runs {
        let band = Strip(run: run, segment: 0, column: 0, count: min(tile.band, tile.runs - run), lanes: laneCount)
        let done = reduceColumns(T.Unrolled.self, tile, channels, band)
        if T.Unrolled.strips > 1 { _ = reduceColumns(T.self, tile, channels, done) }
        if rest != 0 {
            let part = Strip(run: run, segment: 0, column: tile.length - rest, count: band.count, lanes: rest)
            reducePartOfColumn(T.self, tile, channels, part)
        }
        run += tile.band
    }
}

/// From a strip on to the last of which all lanes are needed; gives the next one.
@inline(__always)
private func reduceColumns<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ first: Strip
) -> Strip {
    var strip = first
    while strip.column + T.strips * laneCount <= tile.length {
        T.finish(sum(T.self, tile, channels, strip, from: T.zero), tile, channels, strip)
        strip = Strip(
            run: strip.run, segment: 0, column: strip.column + T.strips * laneCount, count: strip.count,
            lanes: laneCount)
    }
    return strip
}

@inline(never)
private func reducePartOfColumn<T: Accumulator>(
    _: T.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip
) {
    T.finish(sum(T.self, tile, channels, strip, from: T.zero), tile, channels, strip)
}

extension Accumulator {
    static var isShort: Bool { hasLoopForEach }
}

/// A single strip.
extension Accumulator where Totals == Sums {
    static var strips: Int { 1 }
    static var zero: Sums { .zero }

    /// The lanes of a plane's channel are one sum. The sums of a band of rows join those of the bands before it, which wait
    /// where the results will be.
    @inline(__always)
    static func finish(_ sums: Sums, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        if ChannelLayout.channelPerColumn(tile.layout) {
            let first = channels.first + strip.column
            let second = channels.second + strip.column
            var sums = sums
            if strip.run > 0 { sums = Sums(first: loadLanes(first), second: loadLanes(second)) + sums }
            storeLanes(sums.first, to: first)
            storeLanes(sums.second, to: second)
        } else {
            channels.first[strip.segment] = sums.first.sum()
            channels.second[strip.segment] = sums.second.sum()
        }
    }
}

extension Column {
    @inline(__always)
    init<L: Layout>(reducing operand: kernel_operand, _ tile: kernel_tile, _ strip: Strip, _: L.Type) {
        self.init(operand, tile, strip, step: L.channelPerColumn(tile.layout) ? operand.stride : laneCount)
    }
}
