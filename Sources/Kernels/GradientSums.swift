// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σdy and Σdy · (x − mean): all that the gradients need to know of the other values of a channel.
struct GradientSums<T: Element, L: Layout>: Terms {
    typealias Order = L

    private let dy: Column<T, L>
    private let x: Column<T, L>
    private let mean: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(tile.dy, strip)
        x = Column(tile.x, strip)
        mean = perLane(channels.centre, strip, L.self)
    }

    /// Lanes beyond a short strip hold dy = 0 and add nothing.
    @inline(__always)
    func term(_ k: Int) -> Sums {
        let g = T.widen(dy.load(k))
        return Sums(first: g, second: g * (T.widen(x.load(k)) - mean))
    }
}
