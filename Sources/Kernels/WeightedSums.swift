// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σw · d and Σw · d² of d = x − centre. What x is where w is 0 has no say, be it NaN.
struct WeightedSums<T: Element, L: Layout>: Terms {
    typealias Order = L
    static var isShort: Bool { false }

    private let x: Column<T>
    private let weights: Positions<T.Number, L>
    private let centre: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(reducing: tile.x, tile, strip, L.self)
        weights = Positions(tile, strip, rows: 1)
        centre = PerChannel<Double, L>(channels.centre, tile, strip).at(0)
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetchSoon(k) }

    /// Lanes beyond a short strip have no weight.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let w = T.Number.widen(weights.at(k))
        let d = Double.above(w, .zero, T.Number.widen(x.load(k)) - centre, .zero)
        return sums + Sums(first: w * d, second: w * (d * d))
    }
}
