// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σdy and Σdy · (x − mean): all that the gradients need to know of the other values of a channel.
struct GradientSums<T: Arithmetic, L: Layout>: Terms {
    typealias Order = L

    private let dy: Column<T>
    private let x: Column<T>
    private let mean: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(reducing: tile.dy, tile, strip, L.self)
        x = Column(reducing: tile.x, tile, strip, L.self)
        mean = PerChannel<Double, L>(channels.centre, tile, strip).at(0)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetchSoon(k)
        x.prefetchSoon(k)
    }

    /// Lanes beyond a short strip hold dy = 0 and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let g = T.widen(dy.load(k))
        return sums + Sums(first: g, second: g * (T.widen(x.load(k)) - mean))
    }
}
