// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σx and Σx²: the moments of a channel whose mean is no large multiple of its standard deviation. The square of a
/// float32 has 48 bits, those of shorter elements fewer: it is exact.
struct PowerSums<T: Element, L: Layout>: Terms where T.Number == Float {
    typealias Order = L
    typealias Many = Wide<Self>

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
