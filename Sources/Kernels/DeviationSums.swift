// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σd and Σd² of d = x − centre: the moments of a channel, by way of a centre that is one of its values.
struct DeviationSums<T: Arithmetic, L: Layout>: Terms {
    typealias Order = L

    private let x: Column<T>
    private let centre: SIMD16<Double>
    private let rest: SIMD16<T>

    /// The lanes beyond a short strip hold the centre itself, and add nothing.
    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(reducing: tile.x, tile, strip, L.self)
        centre = PerChannel<Double, L>(channels.centre, tile, strip).at(0)
        rest = SIMD16(repeating: T(channels.centre[strip.stretch]))
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetchSoon(k) }

    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let d = T.widen(x.load(k, fill: rest)) - centre
        return sums + Sums(first: d, second: d * d)
    }
}
