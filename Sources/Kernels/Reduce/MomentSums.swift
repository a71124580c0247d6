// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σx and Σx²: the moments of a channel whose mean is no large multiple of its standard deviation. The square of a
/// float32 has 48 bits, those of shorter elements fewer: it is exact.
struct PowerSums<T: Element, L: Layout>: Accumulator where T.Number == Float {
    typealias ChannelLayout = L
    typealias Unrolled = Wide<Self>

    private let x: Column<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(reducing: tile.x, tile, strip, L.self)
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetchSoon(k) }

    /// The lanes beyond a short strip hold 0, and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let d = Float.widen(x.load(k))
        return Sums(first: sums.first + d, second: vector_add_product(sums.second, d, d))
    }
}

/// Σd and Σd² of d = x − pivot: the moments of a channel, by way of a pivot that is one of its values.
struct DeviationSums<T: Arithmetic, L: Layout>: Accumulator {
    typealias ChannelLayout = L

    private let x: Column<T>
    private let pivot: SIMD16<Double>
    private let rest: SIMD16<T>

    /// The lanes beyond a short strip hold the pivot itself, and add nothing.
    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(reducing: tile.x, tile, strip, L.self)
        pivot = PerChannel<Double, L>(channels.pivot, tile, strip).at(0)
        rest = SIMD16(repeating: T(channels.pivot[strip.segment]))
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetchSoon(k) }

    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let d = T.widen(x.load(k, fill: rest)) - pivot
        return sums + Sums(first: d, second: d * d)
    }
}

/// Σw · d and Σw · d² of d = x − pivot. Where w is 0, x has no influence, even if it is NaN.
struct WeightedSums<T: Element, L: Layout>: Accumulator {
    typealias ChannelLayout = L
    static var isShort: Bool { false }

    private let x: Column<T>
    private let weights: PositionWeights<T.Number, L>
    private let pivot: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(reducing: tile.x, tile, strip, L.self)
        weights = PositionWeights(tile, strip, rows: 1)
        pivot = PerChannel<Double, L>(channels.pivot, tile, strip).at(0)
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetchSoon(k) }

    /// Lanes beyond a short strip have no weight.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let w = T.Number.widen(weights.at(k))
        let d = Double.above(w, .zero, T.Number.widen(x.load(k)) - pivot, .zero)
        return sums + Sums(first: w * d, second: w * (d * d))
    }
}

enum PowerSumsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(PowerSums<T, L>.self, tile, channels)
    }
}

enum DeviationSumsLoop: ArithmeticLoop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(DeviationSums<T, L>.self, tile, channels)
    }
}

enum WeightedSumsLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(WeightedSums<T, L>.self, tile, channels)
    }
}
