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
    func term(_ k: Int) -> Sums
}

/// The one loop that reads tensors to learn something of their channels.
@inline(__always)
func reduce<T: Terms>(_: T.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    var reduction = Reduction<T>(tile: tile, channels: channels)
    T.Order.walk(tile, &reduction)
    if !T.Order.channelPerColumn {
        channels.first[0] = reduction.running.first.sum()
        channels.second[0] = reduction.running.second.sum()
    }
}

private struct Reduction<T: Terms>: Walker {
    let tile: kernel_tile
    let channels: kernel_channels
    /// Planes: the sums so far of the one channel. For rows they are kept where the results will be.
    var running = Sums.zero

    @inline(__always)
    mutating func visit(_ strip: Strip) {
        let terms = T(tile, channels, strip)
        var sums = T.Order.channelPerColumn ? .zero : running
        for k in 0..<strip.count { sums = sums + terms.term(k) }
        if T.Order.channelPerColumn { keep(strip.run == 0 ? sums : kept(strip) + sums, strip) } else { running = sums }
    }

    @inline(__always)
    private func kept(_ strip: Strip) -> Sums {
        Sums(
            first: loadLanes(channels.first + strip.column, lanes: strip.lanes),
            second: loadLanes(channels.second + strip.column, lanes: strip.lanes))
    }

    @inline(__always)
    private func keep(_ sums: Sums, _ strip: Strip) {
        storeLanes(sums.first, to: channels.first + strip.column, lanes: strip.lanes)
        storeLanes(sums.second, to: channels.second + strip.column, lanes: strip.lanes)
    }
}
