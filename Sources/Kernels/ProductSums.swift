// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σdy and Σdy · x, for channels as PowerSums is for: the product of two float32 values has 48 bits and is exact.
struct ProductSums<T: Element, L: Layout>: Terms where T.Number == Float {
    typealias Order = L
    typealias Many = WidePair<Self>

    private let dy: Column<T>
    private let x: Column<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(reducing: tile.dy, tile, strip, L.self)
        x = Column(reducing: tile.x, tile, strip, L.self)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetchSoon(k)
        x.prefetchSoon(k)
    }

    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let g = Float.widen(dy.load(k))
        return Sums(
            first: sums.first + g, second: vector_add_product(sums.second, g, Float.widen(x.load(k))))
    }
}
